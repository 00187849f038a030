"""Two tokenizers that need no download, of the two kinds there are: byte-level, and pieces with byte fallback."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from router.text.detokenizer import Detokenizer
from router.text.token_pieces import TokenPieces
from router.text.whole_texts import WholeTexts

EOS = "<eos>"


def byte_level() -> Tokenizer:
    """One token per byte, as GPT-2's without its merges; `<eos>` is special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    return tokenizer


def byte_fallback(*, strips_start: bool = True) -> Tokenizer:
    """Pieces with `▁` for a space, and bytes for what has no piece, as Llama's and ERNIE's; `<eos>` is special."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["▁", *"abcdefgh", "▁ab", "中", "\ufffd"]
    tokens = ["<unk>", *byte_tokens, *pieces]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[],
            unk_token="<unk>",  # noqa: S106
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    start = [decoders.Strip(" ", 1, 0)] if strips_start else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *start]
    )
    tokenizer.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(token_id for token_id, token in added.items() if token.special)


def new_detokenizer(tokenizer: Tokenizer) -> Detokenizer:
    """A fresh one, with a table of its own."""
    special = special_ids(tokenizer)
    return Detokenizer(tokenizer, special, WholeTexts(tokenizer, special, TokenPieces(tokenizer)))
