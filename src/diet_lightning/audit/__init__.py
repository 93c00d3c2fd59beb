"""Audits of training data: hard samples, near-duplicates and label issues, found by a trained head."""
