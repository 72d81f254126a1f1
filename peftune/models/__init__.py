"""GPT-2 as a sequence classifier and as the language model it was: loading, wrapping, reference."""
