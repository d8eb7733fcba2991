"""Baselines of the benchmarks: plain implementations in the usual style of paper code."""
