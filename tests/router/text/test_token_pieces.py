import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from router.text.token_pieces import BYTE_OF_CHAR, TokenPiece, TokenPieces
from tests.router.text.small_tokenizers import EOS, byte_fallback, byte_level

BYTE_LEVEL = byte_level()
BYTE_FALLBACK = byte_fallback()


@given(st.text(max_size=20))
@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte-level", "byte-fallback"])
def test_bytes_of_all_tokens_joined_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    pieces = TokenPieces(tokenizer)
    joined = b"".join(pieces.of(token_id).utf8 for token_id in tokenizer.encode(text).ids)
    decoded = tokenizer.decode(tokenizer.encode(text).ids)
    assert joined.decode().removeprefix(" ") == decoded.removeprefix(" ")  # decoders drop a space at the start


def test_byte_of_a_character_is_replaced_in_text_and_told_in_bytes() -> None:
    for tokenizer in (BYTE_LEVEL, BYTE_FALLBACK):
        pieces = [TokenPieces(tokenizer).of(token_id) for token_id in tokenizer.encode("\u00e9").ids[-2:]]
        assert pieces == [TokenPiece("\ufffd", b"\xc3"), TokenPiece("\ufffd", b"\xa9")]


def test_leading_space_is_part_of_the_text() -> None:
    token_id = BYTE_FALLBACK.token_to_id("\u2581ab")
    assert BYTE_FALLBACK.decode([token_id]) == "ab"
    assert TokenPieces(BYTE_FALLBACK).of(token_id) == TokenPiece(" ab", b" ab")


def test_special_token_has_its_name_as_text() -> None:
    token_id = BYTE_LEVEL.token_to_id(EOS)
    assert TokenPieces(BYTE_LEVEL).of(token_id) == TokenPiece(EOS, EOS.encode())


def test_unknown_id_is_empty_and_remembered_as_such() -> None:
    pieces = TokenPieces(BYTE_LEVEL)
    assert pieces.of(10**6) == TokenPiece("", b"")
    assert pieces.of(10**6) is pieces.of(10**6)


def test_byte_alphabet_is_that_of_the_library() -> None:
    assert set(BYTE_OF_CHAR) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_OF_CHAR.values()) == list(range(256))
    for char, byte in BYTE_OF_CHAR.items():
        if byte < 128:
            ((written, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(
                chr(byte)
            )
            assert written == char
