"""The reinforcement learning that the methods need."""
