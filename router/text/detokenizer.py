"""Token ids back to text while they arrive. Not for whole answers (`TextCodec.decode`), nor for stop strings."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from router.text.token_pieces import REPLACEMENT
from router.text.whole_texts import WholeTexts


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

    A token that is whole by itself is looked up instead; what it leaves behind is as if it had been decoded.
    """

    __slots__ = ("_context", "_held", "_special_ids", "_tokenizer", "_whole_texts")

    def __init__(self, tokenizer: Tokenizer, special_ids: frozenset[int], whole_texts: WholeTexts) -> None:
        """Starts an answer.

        Args:
            tokenizer: shared between answers, not changed.
            special_ids: ids without text. They are dropped here, though decoding would skip them too, so that an
                answer that goes on past its end-of-sequence token does not hold more and more ids.
            whole_texts: of the tokenizer; shared.
        """
        self._tokenizer = tokenizer
        self._special_ids = special_ids
        self._whole_texts = whole_texts
        self._context: list[int] = []
        self._held: list[int] = []

    @property
    def is_holding(self) -> bool:
        """Whether ids have come whose text has not."""
        return bool(self._held)

    def push(self, token_ids: Sequence[int]) -> list[str]:
        """Takes the next ids, one by one; returns for each the text that is certain with it, maybe none."""
        if self._context and not self._held:
            texts = [text for token_id in token_ids if (text := self._whole_texts[token_id]) is not None]
            if texts and len(texts) == len(token_ids):
                self._context = [token_ids[-1]]
                return texts
        return [self._push(token_id) for token_id in token_ids]

    def finish(self) -> str:
        """Ends the answer; returns what was held, with replacement characters for incomplete ones."""
        if not self._held:
            return ""
        return self._release(self._decode(self._context), self._decode(self._context + self._held))

    def _push(self, token_id: int) -> str:
        if token_id in self._special_ids:
            return ""
        if self._context and not self._held and (whole := self._whole_texts[token_id]) is not None:
            self._context = [token_id]
            return whole
        self._held.append(token_id)
        context_text, text = self._decode(self._context), self._decode(self._context + self._held)
        if text.endswith(REPLACEMENT) or len(text) <= len(context_text):
            return ""
        return self._release(context_text, text)

    def _release(self, context_text: str, window_text: str) -> str:
        continues = window_text.startswith(context_text)
        piece = window_text[len(context_text) :] if continues else self._decode(self._held)
        self._context, self._held = self._held, []
        return piece

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)
