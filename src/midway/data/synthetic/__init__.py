"""Synthetic worlds with exact motion and masks."""
