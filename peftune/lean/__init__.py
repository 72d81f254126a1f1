"""GPT-2's forward for training: the same mathematics over the same weights, in fewer steps.

It is put on a prepared model for the time of a training and taken off afterwards; what is saved,
loaded and measured is transformers' own model.
"""
