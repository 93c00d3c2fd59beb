"""Utilities for all packages: files, memory of devices, seeds."""
