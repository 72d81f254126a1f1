"""Measure what a model forgot: score documents before and after, with intervals and controls."""
