"""Evaluations of trained networks, one module each."""
