"""The fast path: peftune's own forward of GPT-2 for training and scoring, and its kernels."""
