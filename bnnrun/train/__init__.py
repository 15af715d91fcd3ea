"""Training: optimizers, schedules, checkpoints, the loop."""
