"""Measurements of this project against what else there is: `python -m benchmarks.token_stats`."""
