"""Texts of tokens that are whole characters, so that most tokens of an answer are looked up and not decoded."""

import json
from typing import Any

from tokenizers import Tokenizer

from router.text.token_pieces import REPLACEMENT, TokenPieces

# How tokenizers.json names the parts of the decoder of Llama's, ERNIE's and other SentencePiece vocabularies; some
# leave out the last one, which strips the start of a text.
_SENTENCE_PIECE = ["Replace", "ByteFallback", "Fuse", "Strip"]


class WholeTexts(dict[int, str | None]):
    """By token id, what the token adds to any text that does not end inside a character.

    None for tokens of which that cannot be said: special ones, those that are or may be part of a character, those
    without text; and all of a tokenizer whose decoder looks at neighbours, as WordPiece does. Filled as tokens are
    asked for, with the vocabulary at most; shared between answers.
    """

    def __init__(self, tokenizer: Tokenizer, special_ids: frozenset[int], pieces: TokenPieces) -> None:
        """`pieces` are the tokenizer's, and `special_ids` its ids without text."""
        super().__init__()
        self._pieces = pieces
        self._special_ids = special_ids
        self._is_for_any = _decodes_tokens_by_themselves(tokenizer)

    def __missing__(self, token_id: int) -> str | None:
        """Looks a token up, and remembers it."""
        text = self[token_id] = self._look_up(token_id)
        return text

    def _look_up(self, token_id: int) -> str | None:
        if not self._is_for_any or token_id in self._special_ids:
            return None
        text = self._pieces.of(token_id).text
        return None if not text or text.endswith(REPLACEMENT) else text


def _decodes_tokens_by_themselves(tokenizer: Tokenizer) -> bool:
    """Whether a text is that of its tokens one after another, but for incomplete characters and for its start."""
    if tokenizer.decoder is None:
        return False  # the library puts spaces between tokens
    decoder: dict[str, Any] = json.loads(tokenizer.decoder.__getstate__())
    if decoder["type"] == "ByteLevel":
        return True
    if decoder["type"] != "Sequence":
        return False
    parts = decoder["decoders"]
    has_known_parts = [part["type"] for part in parts] in (_SENTENCE_PIECE, _SENTENCE_PIECE[:-1])
    return has_known_parts and "String" in parts[0]["pattern"] and all(part.get("stop", 0) == 0 for part in parts)
