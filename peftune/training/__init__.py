"""Train with transformers' Trainer, and say what was learned."""
