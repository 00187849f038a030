from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from router.text.bad_words import bad_word_token_ids
from router.text.model_files import TextDefaults
from router.text.tokenizer import TextCodec
from tests.router.text.small_tokenizers import byte_fallback


def codec_of(tokenizer: Tokenizer, folder: Path) -> TextCodec:
    (folder / "config.json").write_text("{}")
    return TextCodec(tokenizer, TextDefaults.load(folder), None)


def with_word_tokens() -> Tokenizer:
    """Byte-level, where some words have tokens of their own behind a space."""
    space = "\u0120"  # how a space is written
    merges = [("a", "b"), (space, "ab"), ("c", "d"), (space, "d"), (f"{space}d", "a")]
    vocab = [space, *"abcd", *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocab)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer


def names(codec: TextCodec, tokenizer: Tokenizer, *words: str) -> list[list[str]]:
    return [[tokenizer.id_to_token(i) for i in word] for word in bad_word_token_ids(codec, words)]


@pytest.mark.parametrize("word", ["ab", " ab", "\n ab"])
def test_word_with_a_token_of_its_own_after_a_space_is_two_sequences(tmp_path: Path, word: str) -> None:
    tokenizer = with_word_tokens()
    assert names(codec_of(tokenizer, tmp_path), tokenizer, word) == [["ab"], ["\u0120ab"]]


def test_sequences_of_different_length_are_both_kept(tmp_path: Path) -> None:
    tokenizer = with_word_tokens()
    assert names(codec_of(tokenizer, tmp_path), tokenizer, "da") == [["d", "a"], ["\u0120da"]]


def test_spaced_word_that_ends_in_the_bare_one_is_left_out(tmp_path: Path) -> None:
    tokenizer = with_word_tokens()
    assert names(codec_of(tokenizer, tmp_path), tokenizer, "cd", "ba") == [["cd"], ["b", "a"]]


def test_equal_sequences_are_one(tmp_path: Path) -> None:
    tokenizer = with_word_tokens()
    assert names(codec_of(tokenizer, tmp_path), tokenizer, "cd", " cd", "cd") == [["cd"]]


def test_tokenizer_that_adds_a_space_itself_gives_every_word_a_sequence(tmp_path: Path) -> None:
    tokenizer = byte_fallback()
    codec = codec_of(tokenizer, tmp_path)
    for word in ("ab", "h", "\u4e2d"):
        assert any(codec.decode(sequence).strip() == word for sequence in bad_word_token_ids(codec, [word]))
