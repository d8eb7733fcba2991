"""Clips: finding, describing and reading them."""
