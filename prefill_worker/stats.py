"""Totals of the prompts that a worker has computed."""

from dataclasses import dataclass


@dataclass(slots=True)
class PrefixStats:
    """Totals over the prompts whose first token was drawn, since the start of the process.

    Attributes:
        num_query_tokens: their tokens.
        num_hit_tokens: those whose KV was found, not computed.
    """

    num_query_tokens: int = 0
    num_hit_tokens: int = 0
