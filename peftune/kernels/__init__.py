"""Products, attention and dropout on tensors, each with a backward pass of its own: torch only."""
