"""What a tuned model has to beat: the baseline ladder, from the majority class to the prompted base."""
