"""Dense prediction heads."""
