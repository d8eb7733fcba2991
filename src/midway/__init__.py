"""Learn recognition and motion from ordinary video, without labels, with one network."""
