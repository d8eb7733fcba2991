"""Metrics: scores of predictions against ground truth."""
