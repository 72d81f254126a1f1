"""Models: architecture, loading, tokenizer, preparation and its guards, interpolation, LM head, merging."""
