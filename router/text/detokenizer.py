"""Token ids back to text while they arrive. Not for whole answers (`TextCodec.decode`), nor for stop strings."""

from collections.abc import Sequence

from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"  # what decoders put where bytes are no UTF-8 (yet)


class Detokenizer:
    """Turns one answer's token ids into text; the pieces joined equal the decoding of all ids at once.

    A character may span tokens, so text that ends in an incomplete character is held until the next token
    completes it. Special tokens give no text.

    The window is that of `DecodeStream` of the tokenizers library and of text-generation-inference: the ids of the
    last piece of text, which give decoders that strip or join at the start their context, and the ids that gave
    no text yet:

        ids      ... already shown ... | context | held |
        window                         [         .      )

    `DecodeStream` itself keeps its tail to itself at the end, and raises where a decoder changes its mind about
    text it gave before. Byte-fallback decoders do that: one bad byte turns a whole run of bytes bad. Here such
    text stays as it was shown, and what follows is decoded afresh.
    """

    __slots__ = ("_context", "_context_text", "_held", "_special_ids", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, special_ids: frozenset[int]) -> None:
        """Starts an answer.

        Args:
            tokenizer: shared between answers, not changed.
            special_ids: ids without text. They are dropped here, though decoding would skip them too, so that an
                answer that goes on past its end-of-sequence token does not hold more and more ids.
        """
        self._tokenizer = tokenizer
        self._special_ids = special_ids
        self._context: list[int] = []
        self._context_text = ""
        self._held: list[int] = []

    @property
    def is_holding(self) -> bool:
        """Whether ids have come whose text has not."""
        return bool(self._held)

    def push(self, token_ids: Sequence[int]) -> str:
        """Takes the next ids; returns the text that is certain with them, maybe none."""
        self._held += [token_id for token_id in token_ids if token_id not in self._special_ids]
        if not self._held:
            return ""
        text = self._decode(self._context + self._held)
        if text.endswith(REPLACEMENT) or len(text) <= len(self._context_text):
            return ""
        return self._release(text)

    def finish(self) -> str:
        """Ends the answer; returns what was held, with replacement characters for incomplete ones."""
        return self._release(self._decode(self._context + self._held)) if self._held else ""

    def _release(self, window_text: str) -> str:
        held_text = self._decode(self._held)
        continues = window_text.startswith(self._context_text)
        piece = window_text[len(self._context_text) :] if continues else held_text
        self._context, self._context_text, self._held = self._held, held_text, []
        return piece

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)
