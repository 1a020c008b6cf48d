"""Log-probability, entropy and self-certainty of every token over the vocabulary; see kernels/README.md."""

from vocab_kernels.reference import TokenStats
from vocab_kernels.stats import linear_token_stats, token_stats

__all__ = ["TokenStats", "linear_token_stats", "token_stats"]
