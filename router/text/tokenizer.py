"""Text to token ids and back, from a checkpoint folder, without torch. Not streaming (`detokenizer`, `stream`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer

from core.errors import CheckpointError, InvalidRequestError
from core.sampling import SamplingParams
from router.text.chat_template import ChatTemplate
from router.text.detokenizer import Detokenizer
from router.text.model_files import TextDefaults
from router.text.token_pieces import TokenPiece, TokenPieces
from router.text.whole_texts import WholeTexts


class TextCodec:
    """What a router needs of a checkpoint to speak text. Loaded once; safe to share between threads and answers.

    Encoding a long text takes milliseconds and lets go of the interpreter lock: off the event loop for such.

    Attributes:
        vocab_size: valid token ids are in [0, vocab_size): the rows of the model's embedding.
        context_length: most tokens of prompt plus answer; None when the checkpoint does not say.
        eos_token_ids: generating one of these ends an answer. May be empty.
        default_sampling: what a request gets that does not say otherwise; its seed means nothing.
    """

    def __init__(self, tokenizer: Tokenizer, defaults: TextDefaults, template: ChatTemplate | None) -> None:
        """Puts the parts together; `load` reads them from a folder."""
        self._tokenizer = tokenizer
        self._template = template
        self._pieces = TokenPieces(tokenizer)
        added_tokens = tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(token_id for token_id, token in added_tokens.items() if token.special)
        self._whole_texts = WholeTexts(tokenizer, self._special_ids, self._pieces)
        self.vocab_size = defaults.num_embeddings or tokenizer.get_vocab_size()
        self.context_length = defaults.context_length
        self.eos_token_ids = defaults.eos_token_ids
        self.default_sampling: SamplingParams = defaults.sampling

    @classmethod
    def load(cls, model_dir: Path) -> Self:
        """Reads tokenizer.json, config.json and, where there, the other text files of a checkpoint folder.

        Raises:
            CheckpointError: a file is missing or cannot be used; the message names it and the remedy.
        """
        path = model_dir / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"tokenizer.json is missing in {model_dir}; pass a folder with a fast tokenizer, or write one with "
                f"transformers: AutoTokenizer.from_pretrained({str(model_dir)!r}).save_pretrained({str(model_dir)!r})"
            )
        return cls(_read_tokenizer(path), TextDefaults.load(model_dir), ChatTemplate.load(model_dir))

    @property
    def has_chat_template(self) -> bool:
        """Whether `render_chat` can be used."""
        return self._template is not None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text. Special tokens written out in the text become those tokens.

        Args:
            text: any text; the ids of an empty one may be none.
            add_special_tokens: whether to add what the tokenizer puts around a text (often a start token): True
                for a plain completion, False for a rendered chat, which holds them already.
        """
        # The one of the library's calls that does not find out which characters each token is of: a sixth faster.
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids; ids unknown to the tokenizer give none."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def token_piece(self, token_id: int) -> TokenPiece:
        """One token by itself, special or not, as in `logprobs`."""
        return self._pieces.of(token_id)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt text of a conversation; see `ChatTemplate.render`. Encode it without adding special tokens.

        Raises:
            InvalidRequestError: the checkpoint has no chat template, or its template refused the messages.
        """
        if self._template is None:
            raise InvalidRequestError(
                "this model has no chat template; send the prompt to /v1/completions instead", param="messages"
            )
        return self._template.render(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, variables=variables
        )

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Token ids of a conversation.

        Raises:
            InvalidRequestError: as `render_chat`.
        """
        text = self.render_chat(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, variables=variables
        )
        return self.encode(text, add_special_tokens=False)

    def detokenizer(self) -> Detokenizer:
        """A new detokenizer, for one answer."""
        return Detokenizer(self._tokenizer, self._special_ids, self._whole_texts)


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for whatever is wrong with a file
        raise CheckpointError(f"{path} cannot be read ({error}); fetch the checkpoint again") from error
    # Some checkpoints carry the settings of their training; a prompt is neither cut nor filled up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
