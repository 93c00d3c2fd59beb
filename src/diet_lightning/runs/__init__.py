"""A run on disk: its folder, checkpoint, metrics and scores."""
