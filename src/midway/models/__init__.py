"""Networks that a user may want without training."""
