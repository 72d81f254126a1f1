"""Intervals, paired tests, crossed effects and multiple comparisons: arrays in, numbers out."""
