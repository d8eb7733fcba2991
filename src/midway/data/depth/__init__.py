"""Images with depth: the layout of NYU Depth v2, crops and the dataloader."""
