"""DIETModule, and what it needs of the Trainer, the schedule and checkpoints."""
