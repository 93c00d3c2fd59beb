"""A run on disk: its folder, record, checkpoint, metrics and scores."""
