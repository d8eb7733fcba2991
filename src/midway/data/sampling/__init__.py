"""Samples of clips, their order, and batches of them."""
