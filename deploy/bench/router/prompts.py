"""Texts for measuring a router: prompts of an exact number of tokens, and an answer whose tokens can be counted.

Not sent anywhere from here. Where no model is at hand, its tokenizer is made here, too.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from core.errors import ConfigError
from router.text.tokenizer import TextCodec

CONTEXT = 8192  # as the demo model's
NUM_WORDS = 512  # of which prompts and answers are made
VOCAB_SIZE = 4096
MAX_TRIES = 64
TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}<|assistant|>"
_WORD = re.compile(r" [a-z]{3,8}")


def write_small_tokenizer(model_dir: Path) -> Path:
    """Makes a byte-level BPE tokenizer with a chat template, as a checkpoint folder without weights; returns it."""
    model_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_sentences(random.Random(0)), trainer)  # noqa: S311 - the same words every time
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer.save(str(model_dir / "tokenizer.json"))
    eos = tokenizer.token_to_id("</s>")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, "eos_token": "</s>"}
    config = {"max_position_embeddings": CONTEXT, "vocab_size": tokenizer.get_vocab_size(), "eos_token_id": eos}
    (model_dir / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (model_dir / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model_dir


def _sentences(rng: random.Random) -> list[str]:
    """Text of a thousand words that do not exist."""
    syllables = [first + second for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u", "an", "or")]
    words = ["".join(rng.choices(syllables, k=rng.randint(2, 3))) for _ in range(1000)]
    return ["".join(f" {word}" for word in rng.choices(words, k=20)) for _ in range(2000)]


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """What every answer says: the same words again and again, each of them one token.

    Attributes:
        token_ids: the token at position n of an answer is the one at n modulo their number.
        words: their texts, without spaces.
    """

    token_ids: tuple[int, ...]
    words: tuple[str, ...]

    def token_id(self, position: int) -> int:
        """The token at a position of an answer."""
        return self.token_ids[position % len(self.token_ids)]


def answer_tokens(codec: TextCodec) -> AnswerTokens:
    """Words of a vocabulary that are one token with the space before them.

    Raises:
        ConfigError: it has none.
    """
    found = _one_token_words(codec)
    return AnswerTokens(tuple(found.values()), tuple(found))


def exact_prompts(codec: TextCodec, num_prompts: int, num_tokens: int, seed: int = 0) -> list[str]:
    """User messages, all different from their first words on, that are prompts of exactly `num_tokens` tokens.

    Raises:
        ConfigError: the chat template alone takes more, or words of this tokenizer do not add up to that.
    """
    words = list(_one_token_words(codec))
    rng = random.Random(seed)  # noqa: S311 - prompts that can be had again
    return [_exact_prompt(codec, words, num_tokens, rng) for _ in range(num_prompts)]


def _exact_prompt(codec: TextCodec, words: Sequence[str], num_tokens: int, rng: random.Random) -> str:
    num_words = num_tokens
    for _ in range(MAX_TRIES):
        content = " ".join(rng.choices(words, k=max(1, num_words)))
        too_many = len(codec.encode_chat([{"role": "user", "content": content}])) - num_tokens
        if not too_many:
            return content
        num_words -= too_many
    raise ConfigError(
        f"no text found that is a prompt of {num_tokens} tokens for this tokenizer; its chat template takes "
        f"{len(codec.encode_chat([{'role': 'user', 'content': ''}]))} by itself: ask for more tokens"
    )


def _one_token_words(codec: TextCodec) -> dict[str, int]:
    found: dict[str, int] = {}
    for token_id in range(codec.vocab_size):
        piece = codec.token_piece(token_id).text
        if _WORD.fullmatch(piece) and token_id not in codec.eos_token_ids:
            found[piece[1:]] = token_id
            if len(found) == NUM_WORDS:
                return found
    if not found:
        raise ConfigError("the tokenizer has no token for a word with a space before it; pass another --model")
    return found
