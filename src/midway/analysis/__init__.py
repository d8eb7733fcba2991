"""Analysis of trained networks: heatmaps, tracking, label propagation and pictures."""
