"""The two ends of the model that are as wide as the vocabulary: token ids to activations, activations to logits."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.config import ModelConfig
from engine.layers.linear import linear
from engine.weights import TensorOptions, TensorSlot


class Vocabulary:
    """Embedding and output projection, both cut by tokens where tensor parallelism cuts.

    Args:
        config: the model.
        options: type and device.
    """

    def __init__(self, config: ModelConfig, options: TensorOptions) -> None:
        self._shard = options.shard
        self._part = options.shard.share(config.vocab_size)
        self._embedding = options.empty(self._part.size, config.hidden_size)
        # transformers gives the output projection a bias in the mixture-of-experts class only.
        use_bias = config.use_bias and config.moe is not None
        self._head_bias = options.empty(self._part.size) if use_bias else None
        self._head = self._embedding
        if not config.tie_word_embeddings:
            self._head = options.empty(self._part.size, config.hidden_size)

    def embed(self, token_ids: Tensor) -> Tensor:
        """`[num_tokens]` int64 -> `[num_tokens, hidden_size]`. A rank adds nothing for tokens of other ranks."""
        if self._part.is_whole:
            return F.embedding(token_ids, self._embedding)
        local = token_ids - self._part.first
        is_elsewhere = (local < 0) | (local >= self._part.size)
        x = F.embedding(local.masked_fill_(is_elsewhere, 0), self._embedding).masked_fill_(is_elsewhere[:, None], 0)
        self._shard.add_up_(x)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """`[num_draws, hidden_size]` -> `[num_draws, vocab_size]` float32, on every rank."""
        local = linear(x, self._head, self._head_bias)
        return (local if self._part.is_whole else self._shard.communicator.all_gather(local, -1)).float()

    def slots(self) -> Iterator[TensorSlot]:
        """`model.embed_tokens`, and `lm_head` where the model has one of its own."""
        yield TensorSlot(("model.embed_tokens.weight",), self._embedding, self._part)
        if self._head is not self._embedding:
            yield TensorSlot(("lm_head.weight",), self._head, self._part)
        if self._head_bias is not None:
            yield TensorSlot(("lm_head.bias",), self._head_bias, self._part)
