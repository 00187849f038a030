"""Log-probabilities of drawn tokens and their alternatives, for the rows whose requests asked for them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.logprobs import TokenLogprobs
from engine.plan import Draw


class Scores:
    """The log-probabilities of a step, taken from its logits before anything changes them.

    Args:
        logits: `[num_draws, vocab_size]` float32; not kept.
        draws: one per row.
    """

    def __init__(self, logits: Tensor, draws: Sequence[Draw]) -> None:
        self._asked = {row: d.params.logprobs for row, d in enumerate(draws) if d.params.logprobs is not None}
        self._rows = torch.tensor(list(self._asked), dtype=torch.int64, device=logits.device)
        self._logprobs = logits[self._rows].log_softmax(dim=-1)  # [num_asked, vocab_size]

    def of(self, tokens: Tensor) -> dict[int, TokenLogprobs]:
        """The log-probabilities by row, given the drawn tokens of all rows, `[num_draws]`."""
        if not self._asked:
            return {}
        num_top = min(max(self._asked.values()), self._logprobs.shape[1])
        top = self._logprobs.topk(num_top, dim=-1)  # [num_asked, num_top]
        drawn = tokens[self._rows]
        of_drawn = self._logprobs.gather(1, drawn[:, None])[:, 0]
        columns = (drawn.tolist(), of_drawn.tolist(), top.indices.tolist(), top.values.tolist())
        return {
            row: TokenLogprobs(token_id, logprob, tuple(ids[:num]), tuple(values[:num]))
            for (row, num), token_id, logprob, ids, values in zip(self._asked.items(), *columns, strict=True)
        }
