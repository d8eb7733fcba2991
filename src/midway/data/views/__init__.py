"""Augmented views of frame pairs: their parameters and their rendering."""
