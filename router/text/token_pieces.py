"""Single tokens as text and as bytes, for showing them one by one. Not for answers: those are `detokenizer`'s."""

import re
from dataclasses import dataclass

from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
"""What decoders put where bytes are no UTF-8 (yet)."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # how tokenizers with byte fallback write a byte


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """One token by itself.

    Attributes:
        text: its text inside a text, so with its leading space; replacement characters where it is part of one.
        utf8: the bytes it stands for; those of all tokens of an answer, joined, decode to its text.
    """

    text: str
    utf8: bytes


class TokenPieces:
    """Looks up tokens, and remembers them.

    Args:
        tokenizer: shared, not changed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Decoders strip the start of a text: a token is decoded behind another and what that gave is cut off.
        self._before = tokenizer.encode("a", add_special_tokens=False).ids
        self._text_before = self._decode(self._before)
        self._known: dict[int, TokenPiece] = {}  # at most the vocabulary

    def of(self, token_id: int) -> TokenPiece:
        """The piece of a token, special or not; an id unknown to the tokenizer has none."""
        piece = self._known.get(token_id)
        if piece is None:
            piece = self._known[token_id] = self._look_up(token_id)
        return piece

    def _look_up(self, token_id: int) -> TokenPiece:
        both = self._decode([*self._before, token_id])
        continues = both.startswith(self._text_before)
        text = both[len(self._text_before) :] if continues else self._decode([token_id])
        return TokenPiece(text, self._bytes(token_id) if REPLACEMENT in text else text.encode())

    def _bytes(self, token_id: int) -> bytes:
        """Of a token whose text is incomplete: what its name in the vocabulary says."""
        name = self._tokenizer.id_to_token(token_id) or ""
        if byte := _BYTE_TOKEN.fullmatch(name):
            return bytes([int(byte[1], 16)])
        if all(char in BYTE_OF_CHAR for char in name):
            return bytes(BYTE_OF_CHAR[char] for char in name)
        return name.encode()

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)


def _byte_of_char() -> dict[str, int]:
    """GPT-2's way to write bytes: printable ones of Latin-1 as they are, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF_CHAR = _byte_of_char()
"""Bytes by the character that byte-level tokenizers write them as."""
