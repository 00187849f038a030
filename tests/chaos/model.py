"""A tiny random model with much KV, and what it answers when nothing goes wrong."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import ModelConfig
from engine.sizing import kv_layout
from tests.byte_tokenizer import BYTE_EOS, NUM_BYTE_TOKENS, write_byte_tokenizer
from tests.engine.checkpoints import write_tiny_dense
from tests.oracles import greedy_tokens

BLOCK_TOKENS = 16


@dataclass(frozen=True)
class ChaosModel:
    """A folder with a checkpoint; 32 KiB of KV a token, so that moving a prompt takes a while."""

    folder: Path

    @classmethod
    def write(cls, folder: Path) -> "ChaosModel":
        write_tiny_dense(
            folder,
            vocab_size=NUM_BYTE_TOKENS,
            eos_token_id=BYTE_EOS,
            max_position_embeddings=2048,
            num_attention_heads=8,
            num_key_value_heads=8,
            head_dim=128,
        )
        write_byte_tokenizer(folder)
        return cls(folder)

    @property
    def block_bytes(self) -> int:
        return kv_layout(ModelConfig.from_dir(self.folder), BLOCK_TOKENS, "float32").block_bytes

    def answer(self, prompt: Sequence[int], num_tokens: int) -> tuple[int, ...]:
        """The greedy answer, by transformers."""
        return tuple(greedy_tokens(self.folder, prompt, num_tokens))


def prompt_of(num_tokens: int, seed: int = 0) -> list[int]:
    """Bytes at random."""
    choice = random.Random(seed)  # noqa: S311 - not for secrets
    return [choice.randrange(BYTE_EOS) for _ in range(num_tokens)]
