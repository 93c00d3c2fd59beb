"""Frozen features in, scores with intervals out."""
