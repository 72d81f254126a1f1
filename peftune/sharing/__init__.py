"""What one does with a saved artifact: one file a verb."""
