"""What is done in a fresh process each: one module a kind of work, with a function `run`."""
