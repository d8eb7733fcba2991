"""Video, frame folders, pairs, views, flow files and the synthetic world."""
