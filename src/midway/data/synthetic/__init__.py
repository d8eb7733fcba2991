"""Synthetic worlds with exact optical flow and masks."""
