"""Datasets: clips, samples, views, labels, and the synthetic world."""
