"""Pretraining methods, one file per method."""
