"""What every run needs and no algorithm is in: configuration, ranks, checkpoints, progress."""
