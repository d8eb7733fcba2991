"""The training loop with its schedules, checkpoints and log."""
