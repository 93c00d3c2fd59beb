"""What every room may use: files, memory of devices, seeds."""
