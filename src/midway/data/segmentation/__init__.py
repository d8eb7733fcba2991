"""Labelled images: layouts, crops and the dataloader."""
