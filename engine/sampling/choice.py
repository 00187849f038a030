"""Drawing one token of each row from its filtered distribution, on the device of the logits.

Probabilities are integers (multiples of 2**-40 of the likeliest token's). Sums of integers do not depend on the order
of adding, so neither the rows beside a row, nor their number, nor the device's kernels change what is drawn from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from core.sampling import SamplingParams

# Below this a temperature is as good as greedy, and dividing by it would overflow float32.
MIN_TEMPERATURE = 1e-5
# Weight of the likeliest token. The weights of a million tokens still sum to less than 2**63.
_TOP_WEIGHT = 1 << 40
# exp(-8) of that. Lighter tokens are sorted only when a draw needs them: real rows have some dozens above it.
_HEAD_WEIGHT = _TOP_WEIGHT // 2981
_ID_BITS = 20  # a weight of at most 2**40 and a token id are one sortable number
_ID_MASK = (1 << _ID_BITS) - 1
_BLOCK_TOKENS = 64  # a vocabulary of 49k tokens has more blocks than any usual top-k has tokens


@dataclass(frozen=True, slots=True)
class Filters:
    """What is kept of each row's distribution, on the device; one element a row, each `[n]`.

    Attributes:
        temperature: float32, positive.
        min_p: float32.
        top_k: int64, at least 1; the vocabulary's size or more keeps all.
        top_p: float64.
        keeps_all: bool, whether top-k is off.
        max_top_k: the largest top-k that is not; 0 when all are off.
    """

    temperature: Tensor
    min_p: Tensor
    top_k: Tensor
    top_p: Tensor
    keeps_all: Tensor
    max_top_k: int

    @classmethod
    def of(cls, params: Sequence[SamplingParams], vocab_size: int, device: torch.device) -> Self:
        """Those of some requests, none of them greedy."""
        top_k = [p.top_k if uses_top_k(p, vocab_size) else vocab_size for p in params]
        return cls(
            torch.tensor([max(p.temperature, MIN_TEMPERATURE) for p in params], device=device),
            torch.tensor([p.min_p for p in params], device=device),
            torch.tensor(top_k, device=device),
            torch.tensor([p.top_p for p in params], dtype=torch.float64, device=device),
            torch.tensor([k == vocab_size for k in top_k], device=device),
            max((k for k in top_k if k < vocab_size), default=0),
        )

    def rows(self, rows: Tensor) -> Self:
        """Those of some rows."""
        return type(self)(
            self.temperature[rows],
            self.min_p[rows],
            self.top_k[rows],
            self.top_p[rows],
            self.keeps_all[rows],
            self.max_top_k,
        )


def uses_top_k(params: SamplingParams, vocab_size: int) -> bool:
    """Whether top-k leaves out any token."""
    return 0 < params.top_k < vocab_size


def choose(logits: Tensor, params: Sequence[SamplingParams], numbers: Tensor) -> Tensor:
    """The token at each row's quantile of its filtered distribution.

    Temperature comes first, then min-p, then top-k, then top-p on what is left, renormalised, as in vLLM. Of equally
    likely tokens the lower ids are kept. Quantiles go by token id: by likelihood, two tokens with logits equal but
    for rounding could change places, and the draw with them.

    Args:
        logits: `[n, vocab_size]` float32, finite or minus infinity, not all of a row infinite.
        params: one per row, none greedy.
        numbers: `[n]` float64 in [0, 1), on the device of the logits.

    Returns:
        `[n]` int64 token ids.
    """
    vocab_size = logits.shape[1]
    assert vocab_size <= 1 << _ID_BITS, f"a vocabulary of {vocab_size} tokens does not fit a sortable number"
    filters = Filters.of(params, vocab_size, logits.device)
    weights = _weights(logits, filters, uses_min_p=any(p.min_p > 0 for p in params))
    ranked = [i for i, p in enumerate(params) if p.top_p < 1.0 or uses_top_k(p, vocab_size)]
    if not ranked:
        return _choose_by_id(weights, numbers)
    if len(ranked) == len(params):
        return _choose_by_rank(weights, filters, numbers)
    tokens = torch.empty_like(numbers, dtype=torch.int64)
    is_ranked = torch.zeros(len(params), dtype=torch.bool)
    is_ranked[ranked] = True
    by_rank, by_id = (mask.nonzero()[:, 0].to(logits.device) for mask in (is_ranked, ~is_ranked))
    tokens[by_rank] = _choose_by_rank(weights[by_rank], filters.rows(by_rank), numbers[by_rank])
    tokens[by_id] = _choose_by_id(weights[by_id], numbers[by_id])
    return tokens


def _weights(logits: Tensor, filters: Filters, *, uses_min_p: bool) -> Tensor:
    """Unnormalised probabilities after temperature and min-p: `[n, vocab_size]` int64, the largest 2**40."""
    values = logits - logits.amax(dim=-1, keepdim=True)
    values.div_(filters.temperature[:, None]).exp_()
    if uses_min_p:
        values.masked_fill_(values < filters.min_p[:, None], 0.0)
    return values.mul_(_TOP_WEIGHT).long()


def _choose_by_id(weights: Tensor, numbers: Tensor) -> Tensor:
    """Finds the block that each draw falls into, then the token in it."""
    blocks = _blocks(weights)
    cumulative = blocks.sum(dim=-1).cumsum(dim=-1)  # [n, num_blocks]
    targets = _portion(numbers, cumulative[:, -1])
    found = _find(cumulative, targets)[:, None]
    before = torch.where(found > 0, cumulative.gather(1, (found - 1).clamp(min=0)), 0)[:, 0]
    block = blocks.gather(1, found[:, :, None].expand(-1, -1, _BLOCK_TOKENS))[:, 0]  # [n, block_tokens]
    return found[:, 0] * _BLOCK_TOKENS + _find(block.cumsum(dim=-1), targets - before)


def _choose_by_rank(weights: Tensor, filters: Filters, numbers: Tensor) -> Tensor:
    """Sorts the heads of all rows; where that does not settle the draw, whole rows."""
    totals = weights.sum(dim=-1)
    head = _head_keys(weights, filters)
    if head is None:
        return _choose_in_head(*_whole_keys(weights), totals, filters, numbers)[0]
    tokens, is_settled = _choose_in_head(*head, totals, filters, numbers)
    if not is_settled.all():
        rest = (~is_settled).nonzero()[:, 0]
        whole = _whole_keys(weights[rest])
        tokens[rest], _ = _choose_in_head(*whole, totals[rest], filters.rows(rest), numbers[rest])
    return tokens


def _choose_in_head(
    keys: Tensor, num_in_head: Tensor, totals: Tensor, filters: Filters, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Token ids, and whether tokens outside the head cannot have changed them; each `[n]`.

    0 ............... top-p cut ............... top-k cut ............... head ............... vocabulary
    [ kept, drawn from )
    [ top_p * mass up to the top-k cut )
    """
    width = keys.shape[1]
    ordered = _sort(keys)
    cumulative = _weights_of(ordered).cumsum(dim=-1)  # [n, width]
    in_head = cumulative[:, -1]
    last = filters.top_k.clamp(max=width) - 1
    mass = torch.where(filters.keeps_all, totals, cumulative.gather(1, last[:, None])[:, 0])
    is_mass_known = filters.keeps_all | (filters.top_k <= num_in_head) | (in_head == totals)
    needed = (filters.top_p * mass.double()).ceil().long().clamp(min=1).minimum(mass)
    cut = torch.searchsorted(cumulative, needed[:, None]).clamp(max=width - 1)
    kept = torch.where(keys <= ordered.gather(1, cut), _weights_of(keys), 0).cumsum(dim=-1)  # [n, width]
    index = _find(kept, _portion(numbers, kept[:, -1]))
    return keys.gather(1, index[:, None])[:, 0] & _ID_MASK, is_mass_known & (needed <= in_head)


def _head_keys(weights: Tensor, filters: Filters) -> tuple[Tensor, Tensor] | None:
    """Keys of each row's heaviest tokens, by token id, and how many these are.

    Returns:
        `[n, width]` int64, filled up with the key of a weightless token, and `[n]` int64; None when the tokens are so
        many that sorting all is as cheap.
    """
    blocks = _blocks(weights)
    heaviest = blocks.amax(dim=-1)  # [n, num_blocks]
    least = _least_weights(heaviest, filters)
    rows, block_ids = (heaviest >= least).nonzero(as_tuple=True)
    if len(rows) > heaviest.numel() // 4:
        return None
    found = blocks[rows, block_ids]  # [num_found, block_tokens]
    places, offsets = (found >= least[rows]).nonzero(as_tuple=True)
    rows = rows[places]
    num_in_head = torch.bincount(rows, minlength=len(weights))
    columns = torch.arange(len(rows), device=rows.device) - (num_in_head.cumsum(0) - num_in_head)[rows]
    keys = torch.full((len(weights), int(num_in_head.max())), _TOP_WEIGHT << _ID_BITS, device=weights.device)
    keys[rows, columns] = _keys(found[places, offsets], block_ids[places] * _BLOCK_TOKENS + offsets)
    return keys, num_in_head


def _least_weights(heaviest: Tensor, filters: Filters) -> Tensor:
    """How light a token of each row's head may be, `[n, 1]`: so that top-k finds its tokens there.

    The k heaviest blocks of a row hold at least k tokens no lighter than the lightest of these blocks' heaviest.

    Args:
        heaviest: `[n, num_blocks]`, each block's heaviest weight.
        filters: of the same rows.
    """
    least = torch.full((len(heaviest), 1), _HEAD_WEIGHT, device=heaviest.device)
    if filters.max_top_k == 0:
        return least
    num_heaviest = min(heaviest.shape[1], filters.max_top_k)
    kth = heaviest.topk(num_heaviest).values.gather(1, filters.top_k.clamp(max=num_heaviest)[:, None] - 1)
    return torch.where((filters.top_k <= num_heaviest)[:, None], least.minimum(kth.clamp(min=1)), least)


def _blocks(weights: Tensor) -> Tensor:
    """The weights of consecutive tokens, `[n, num_blocks, block_tokens]`; the last ones may be filled up with 0."""
    num_missing = -weights.shape[1] % _BLOCK_TOKENS
    filled = F.pad(weights, (0, num_missing)) if num_missing else weights
    return filled.view(len(weights), -1, _BLOCK_TOKENS)


def _whole_keys(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Keys of all tokens of each row, and how many these are; as `_head_keys`."""
    num_rows, vocab_size = weights.shape
    token_ids = torch.arange(vocab_size, device=weights.device)
    return _keys(weights, token_ids), torch.full((num_rows,), vocab_size, device=weights.device)


def _keys(weights: Tensor, token_ids: Tensor) -> Tensor:
    """Numbers that sort the heaviest token first and equal ones by id. All differ: any sort has one result."""
    return (_TOP_WEIGHT - weights).bitwise_left_shift_(_ID_BITS).bitwise_or_(token_ids)


def _weights_of(keys: Tensor) -> Tensor:
    return _TOP_WEIGHT - (keys >> _ID_BITS)


def _sort(keys: Tensor) -> Tensor:
    """Each row sorted; on a CPU by numpy, whose vectorised sort is ten times as fast as torch's."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.sort(keys.numpy(), axis=-1))
    return keys.sort(dim=-1).values


def _portion(numbers: Tensor, masses: Tensor) -> Tensor:
    """`numbers` of `masses` in whole weights, each below its mass; `[n]` int64."""
    return (numbers * masses.double()).long().minimum(masses - 1)


def _find(cumulative: Tensor, targets: Tensor) -> Tensor:
    """Index of the first sum in each row that exceeds its target; `[n]` int64."""
    return torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0]
