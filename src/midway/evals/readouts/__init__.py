"""Trained readouts: objectives, protocols and inference."""
