"""Pretrained networks between two frames, one file per kind, found by file name."""
