"""Optical flow networks, and flow by matching."""
