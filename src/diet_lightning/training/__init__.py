"""DIETModule, its optimiser and schedule, its checkpoints, and checks of the Trainer."""
