"""Benchmarks of data loading and of the training step, for `midway bench`."""
