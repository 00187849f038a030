"""The two ends of a model: token ids to embeddings, and hidden states to logits; one matrix where they are tied."""

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.kernels.native import NativeKernels, PackedWeight
from engine.layers.linear import linear
from engine.parallel.axis_part import AxisPart
from engine.parallel.shard import Shard
from engine.weights import TensorOptions, TensorSlot, packed_slot


class VocabularyMatrix(Protocol):
    """`[vocab_size, hidden_size]`, uninitialised until its slot is filled."""

    def embed(self, token_ids: Tensor) -> Tensor:
        """`[num_tokens]` int64 -> a new `[num_tokens, hidden_size]`."""
        ...

    def logits(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """`[num_tokens, hidden_size]` -> `[num_tokens, vocab_size]` float32."""
        ...

    def slot(self, name: str) -> TensorSlot:
        """The place of the checkpoint tensor."""
        ...


class DenseVocabulary:
    """The matrix as it stands in the checkpoint."""

    def __init__(self, vocab_size: int, hidden_size: int, options: TensorOptions) -> None:
        self._rows = options.empty(vocab_size, hidden_size)

    def embed(self, token_ids: Tensor) -> Tensor:
        """See `VocabularyMatrix`."""
        return F.embedding(token_ids, self._rows)

    def logits(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `VocabularyMatrix`."""
        return linear(x, self._rows, bias).float()

    def slot(self, name: str) -> TensorSlot:
        """See `VocabularyMatrix`."""
        return TensorSlot((name,), self._rows)


class TiledVocabulary:
    """The matrix in tile order only: a lookup gathers a row from its tiles, which costs less than a second copy."""

    def __init__(self, vocab_size: int, hidden_size: int, kernels: NativeKernels) -> None:
        self._kernels = kernels
        self._tiles = PackedWeight.empty(vocab_size, hidden_size)

    def embed(self, token_ids: Tensor) -> Tensor:
        """See `VocabularyMatrix`."""
        return self._kernels.embed(token_ids, self._tiles)

    def logits(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `VocabularyMatrix`."""
        return self._kernels.linear(x, self._tiles, bias, dtype=torch.float32)

    def slot(self, name: str) -> TensorSlot:
        """See `VocabularyMatrix`."""
        return packed_slot(name, self._kernels, self._tiles, self._tiles.out_features)


class SharedVocabulary:
    """The rows of some tokens; the other ranks have the others'.

    Args:
        part: the rows.
        matrix: of them.
        shard: reaches the other ranks.
    """

    def __init__(self, part: AxisPart, matrix: VocabularyMatrix, shard: Shard) -> None:
        self._part = part
        self._matrix = matrix
        self._shard = shard

    def embed(self, token_ids: Tensor) -> Tensor:
        """See `VocabularyMatrix`. Of a token, one rank adds its row and the others add zero."""
        local = token_ids - self._part.first
        is_elsewhere = (local < 0) | (local >= self._part.size)
        x = self._matrix.embed(local.masked_fill_(is_elsewhere, 0)).masked_fill_(is_elsewhere[:, None], 0)
        self._shard.add_up_(x)
        return x

    def logits(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `VocabularyMatrix`; `bias` is of the part, the result of the whole."""
        return self._shard.communicator.all_gather(self._matrix.logits(x, bias), -1)

    def slot(self, name: str) -> TensorSlot:
        """See `VocabularyMatrix`."""
        return replace(self._matrix.slot(name), rows=self._part)


def make_vocabulary(vocab_size: int, hidden_size: int, options: TensorOptions) -> VocabularyMatrix:
    """Cut by tokens where tensor parallelism cuts; tiled where there are native kernels."""
    part = options.shard.share(vocab_size)
    matrix: VocabularyMatrix
    if options.kernels is not None:
        matrix = TiledVocabulary(part.size, hidden_size, options.kernels)
    else:
        matrix = DenseVocabulary(part.size, hidden_size, options)
    return matrix if part.is_whole else SharedVocabulary(part, matrix, options.shard)
