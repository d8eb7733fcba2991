"""Video files: headers, decoding and writing."""
