"""Optical flow: file formats, datasets, augmentation and the dataloader."""
