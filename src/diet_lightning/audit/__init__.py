"""What a trained head says of its own training data."""
