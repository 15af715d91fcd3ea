"""Training: optimizers, schedules, checkpoints, the loop."""

# In a run folder: the state at the end of the latest epoch, and the network of the picked one.
STATE, BEST = "checkpoint.pt", "best.pt"
