"""§3.3 Two-stage reinforcement learning from verifiable rewards."""
