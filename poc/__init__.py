"""A single-GPU pilot kit for label-free reinforcement learning of small language models."""

__version__ = "0.1.0"
