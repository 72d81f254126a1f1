"""GPT-2's forward for training and scoring: the same mathematics over the same weights, in fewer steps."""
