"""What transformers' own ERNIE 4.5 MoE code says, in float32: the reference for the engine and for whole answers."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel


@functools.lru_cache(maxsize=1)  # one model at a time in memory: the demo model takes 1.5 GB in float32
def load_model(model_dir: Path) -> PreTrainedModel:
    """The model in float32, ready to be called; kept for the next caller."""
    # Loading in the stored type and widening after takes a third less memory than letting transformers widen.
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto", local_files_only=True)
    return model.to(torch.float32).eval()


def greedy_tokens(
    model_dir: Path, prompt_token_ids: Sequence[int], max_new_tokens: int, *, repetition_penalty: float = 1.0
) -> list[int]:
    """The most likely continuation: up to `max_new_tokens`, or up to and including an end-of-sequence token."""
    model = load_model(model_dir)
    return greedy_tokens_of(model, prompt_token_ids, max_new_tokens, repetition_penalty=repetition_penalty)


def greedy_tokens_of(
    model: PreTrainedModel,
    prompt_token_ids: Sequence[int],
    max_new_tokens: int,
    *,
    repetition_penalty: float = 1.0,
) -> list[int]:
    """As `greedy_tokens`, with a model that is loaded already."""
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        repetition_penalty=repetition_penalty,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    prompt = torch.tensor([list(prompt_token_ids)])
    with _one_thread(), torch.inference_mode():
        answer = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
    return answer[0, prompt.shape[1] :].tolist()


def logits(model_dir: Path, token_ids: Sequence[int]) -> torch.Tensor:
    """Logits after each token. [num_tokens, vocab_size], float32."""
    return logits_of(load_model(model_dir), token_ids)


def logits_of(model: PreTrainedModel, token_ids: Sequence[int]) -> torch.Tensor:
    """As `logits`, with a model that is loaded already."""
    with _one_thread(), torch.inference_mode():
        return model(torch.tensor([list(token_ids)]), use_cache=False).logits[0]


@contextmanager
def _one_thread() -> Iterator[None]:
    """The sum's order, and so its last bits, must not depend on how many cores a machine has."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
