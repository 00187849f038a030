"""Texts for measuring a router: prompts of an exact number of tokens, and an answer whose tokens can be counted.

Not sent anywhere from here. Where no model is at hand, its tokenizer is made here, too.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from core.errors import ConfigError
from loadtest.workloads.wordbook import confirmed_words
from loadtest.workloads.words import WORDS
from router.text.tokenizer import TextCodec

CONTEXT = 8192  # as the demo model's
VOCAB_SIZE = 4096
TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}<|assistant|>"


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
    return [" ".join(rng.choices(WORDS, k=20)) for _ in range(2000)]


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


def new_answer_tokens(codec: TextCodec) -> AnswerTokens:
    """What answers say in a model's tokens.

    Raises:
        ConfigError: its tokenizer has hardly any word that is one token.
    """
    words = _words(codec)
    _, *token_ids = codec.encode(" ".join((words[0], *words)), add_special_tokens=False)
    return AnswerTokens(tuple(token_ids), words)


def exact_prompts(codec: TextCodec, num_prompts: int, num_tokens: int) -> list[str]:
    """User messages that are prompts of exactly `num_tokens` tokens, different from their first words on.

    Raises:
        ConfigError: the chat template alone takes as many, or the tokenizer has hardly any word that is one token.
    """

    def chat_tokens(content: str) -> int:
        return len(codec.encode_chat([{"role": "user", "content": content}]))

    words = _words(codec, chat_tokens)
    num_words = num_tokens - chat_tokens(words[0]) + 1
    if num_words < 1:
        raise ConfigError(
            f"a prompt of one word is {chat_tokens(words[0])} tokens with this chat template, and {num_tokens} were "
            "asked for; ask for more"
        )
    rng = random.Random(0)  # noqa: S311 - the same prompts every time
    return [" ".join(rng.choices(words, k=num_words)) for _ in range(num_prompts)]


def _words(codec: TextCodec, chat_tokens: Callable[[str], int] | None = None) -> tuple[str, ...]:
    try:
        return confirmed_words(codec, chat_tokens)
    except ConfigError as error:
        raise ConfigError(
            "the tokenizer has hardly any word that is one token wherever it stands, so that nobody could count what "
            "is sent; pass another folder with --model"
        ) from error
