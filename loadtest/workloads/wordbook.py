"""Words of which any number, joined by spaces, has as many tokens as words. Not which follow which: `writer`."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from core.errors import ConfigError
from loadtest.workloads.words import WORDS

NUM_WORDS = 96  # two prompts of five random words are equal in one case of 10^10
MIN_WORDS = 16
MAX_LETTERS = 12


class Encoder(Protocol):
    """What is needed of a tokenizer; `router.text.tokenizer.TextCodec` is one."""

    vocab_size: int

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids."""


ASSUMED = WORDS[:NUM_WORDS]
"""For a server whose tokenizer is not here."""


def confirmed_words(encoder: Encoder, chat_tokens: Callable[[str], int] | None = None) -> tuple[str, ...]:
    """Different words, without spaces, that are one token each with a space before them and without, in any order.

    A tokenizer that merges pairs merges two neighbours first, so it is enough to look at all pairs: n words joined to
    m words are then n + m tokens. Common words come first; tokenizers without them have others in their vocabulary.

    Args:
        encoder: of the model that is asked.
        chat_tokens: how many tokens the chat of one such message has, where there is a chat template: what stands
            before a message must not make its first word two tokens.

    Raises:
        ConfigError: it has hardly any such word.
    """
    chosen: dict[str, int] = {}
    for word in itertools.chain(WORDS, _vocabulary(encoder)):
        token_id = None if word in chosen else _single_token(encoder, word, chosen)
        if token_id is not None:
            chosen[word] = token_id
        if len(chosen) == NUM_WORDS:
            break
    words = tuple(chosen) if chat_tokens is None else _shortest(chosen, chat_tokens)
    if len(words) < MIN_WORDS:
        raise ConfigError(
            f"--tokenizer has only {len(words)} words that are one token wherever they stand, {MIN_WORDS} are "
            "needed; leave it out, and look at the number of prompt tokens that the server counts"
        )
    return words


def _vocabulary(encoder: Encoder) -> Iterator[str]:
    words = (encoder.decode([token_id]).strip() for token_id in range(encoder.vocab_size))
    return (word for word in words if word.isascii() and word.isalnum() and len(word) <= MAX_LETTERS)


def _shortest(words: Iterable[str], chat_tokens: Callable[[str], int]) -> tuple[str, ...]:
    lengths = {word: chat_tokens(word) for word in words}
    shortest = min(lengths.values(), default=0)
    return tuple(word for word, length in lengths.items() if length == shortest)


def _single_token(encoder: Encoder, word: str, chosen: dict[str, int]) -> int | None:
    """The token that a word is, at the start and beside itself and all that are chosen; None when it is not."""
    neighbours = [word, *(neighbour for pair in zip(chosen, itertools.repeat(word)) for neighbour in pair), word]
    ids = encoder.encode(" ".join(neighbours), add_special_tokens=False)
    if len(ids) != len(neighbours) or encoder.decode(ids[-1:]).strip() != word:  # that of unknown words says another
        return None
    expected = [chosen.get(neighbour, ids[-1]) for neighbour in neighbours]
    return ids[-1] if ids[1:] == expected[1:] else None
