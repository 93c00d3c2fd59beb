"""The backbone for other programs."""
