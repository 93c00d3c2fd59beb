"""Data: sources, the index wrapper, augmentation on the device, and the data module."""
