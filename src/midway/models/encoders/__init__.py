"""Image encoders, one file a kind: found by file name, so that a new kind is one new file."""
