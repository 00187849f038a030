"""Words that an answer must not contain, as the token sequences that would write them. Matching is the engine's."""

from collections.abc import Iterable, Sequence

from router.text.tokenizer import TextCodec


def bad_word_token_ids(codec: TextCodec, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """The token sequences of words: each at the start of a text, and after a space where that is another one.

    As vLLM does, but that it leaves out the second one when the two differ in length. A word may still be put
    together from other tokens than the tokenizer would choose.
    """
    sequences: dict[tuple[int, ...], None] = {}  # in order, each once
    for word in words:
        bare, spaced = (_token_ids(codec, text) for text in (word.lstrip(), f" {word.lstrip()}"))
        sequences[bare] = None
        if spaced[-len(bare) :] != bare:  # else the bare one is found in it
            sequences[spaced] = None
    return tuple(sequences)


def _token_ids(codec: TextCodec, text: str) -> tuple[int, ...]:
    token_ids: Sequence[int] = codec.encode(text, add_special_tokens=False)
    return tuple(token_ids)
