"""Worker processes and memory shared with them."""
