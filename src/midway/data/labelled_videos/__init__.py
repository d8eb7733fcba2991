"""Videos with ground-truth point tracks or masks."""
