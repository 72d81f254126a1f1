"""What a tuned model has to beat: baselines from the majority class to the prompted base."""
