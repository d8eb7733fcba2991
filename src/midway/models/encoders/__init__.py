"""Image encoders, one file per kind, found by file name: a new kind needs only a new file."""
