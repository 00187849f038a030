from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.engine import Engine
from tests.engine.checkpoints import write_tiny_dense, write_tiny_moe
from tests.engine.driver import Driver

VARIANTS: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "moe": (write_tiny_moe, {}),
    "moe-without-shared-experts": (write_tiny_moe, {"moe_num_shared_experts": 0}),
    "moe-two-dense-layers-first": (write_tiny_moe, {"moe_layer_start_index": 2, "moe_num_shared_experts": 2}),
    "moe-every-second-layer": (write_tiny_moe, {"moe_layer_interval": 2, "moe_layer_start_index": 0}),
    "moe-dense-layers-last": (write_tiny_moe, {"moe_layer_end_index": 1, "moe_layer_start_index": 0}),
    "moe-untied": (write_tiny_moe, {"tie_word_embeddings": False}),
    "moe-with-biases": (write_tiny_moe, {"use_bias": True}),
    "moe-one-expert-per-token": (write_tiny_moe, {"moe_k": 1}),
    "dense": (write_tiny_dense, {}),
    "dense-untied-with-biases": (write_tiny_dense, {"tie_word_embeddings": False, "use_bias": True}),
    "dense-head-per-kv-head": (write_tiny_dense, {"num_key_value_heads": 4, "head_dim": 32}),
}


@dataclass
class Served:
    """A checkpoint with the engine under test and the reference model, both in float32."""

    model_dir: Path
    engine: Engine
    reference: Any

    @torch.inference_mode()
    def reference_logits(self, token_ids: list[int]) -> Tensor:
        """`[num_tokens, vocab_size]`."""
        logits: Tensor = self.reference(torch.tensor([token_ids])).logits
        return logits[0]

    @torch.inference_mode()
    def reference_greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        cached, ids, answer = None, torch.tensor([prompt]), []
        for _ in range(num_tokens):
            output = self.reference(ids, past_key_values=cached, use_cache=True)
            cached = output.past_key_values
            ids = output.logits[:, -1:].argmax(-1)
            answer.append(int(ids))
        return answer


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Served]:
    """Makes each variant once."""

    @cache
    def make(variant: str) -> Served:
        write, overrides = VARIANTS[variant]
        model_dir = write(tmp_path_factory.mktemp("checkpoint"), **overrides)
        reference = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
        return Served(model_dir, Engine.load(model_dir, num_blocks=160), reference)

    return make


@pytest.fixture(params=VARIANTS)
def served(request: pytest.FixtureRequest, serve: Callable[[str], Served]) -> Served:
    """Every variant in turn."""
    return serve(request.param)


@pytest.fixture
def moe(serve: Callable[[str], Served]) -> Served:
    return serve("moe")


@pytest.fixture
def driver(moe: Served) -> Iterator[Driver]:
    """Over the plain mixture-of-experts model."""
    with Driver(moe.engine) as driver:
        yield driver
