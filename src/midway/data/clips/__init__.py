"""Clips: discovery, indexes, frame folders and frame stores."""
