"""Files, rows on disk, memory of devices, seeds."""
