"""What happens to a batch on its device: augmented, resized, normalised."""
