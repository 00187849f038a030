"""Chat messages to prompt text, with the checkpoint's own Jinja template. Not tokenizing, not message validation.

Renders as transformers' `apply_chat_template` does (src/transformers/utils/chat_template_utils.py), without it.
Templates come with checkpoints from anywhere, so they run in a sandbox and see plain JSON values only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jinja2

from core.errors import CheckpointError, InvalidRequestError
from router.text.model_files import read_json_file
from router.text.template_environment import template_environment

_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")  # the first is what templates read
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What a template may raise over messages that are not what it expects, besides Jinja's own errors: adding a list
# to a string, reading a missing key, a range that is too long for the sandbox.
_RENDER_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class ChatTemplate:
    """The chat template of a checkpoint, compiled once. Safe to share between threads."""

    def __init__(self, templates: Mapping[str, str], special_tokens: Mapping[str, str] | None = None) -> None:
        """Compiles the templates.

        Args:
            templates: Jinja sources by name; `default` must be there, `tool_use` is taken when tools are given.
            special_tokens: what templates see as `bos_token`, `eos_token` and so on.

        Raises:
            CheckpointError: no `default`, or a template with a syntax error.
        """
        if "default" not in templates:
            raise CheckpointError(f"no chat template is named 'default', only {sorted(templates)}; rename one")
        environment = template_environment()
        self._templates = {name: _compile(environment, name, source) for name, source in templates.items()}
        self._special_tokens = dict(special_tokens or {})

    @classmethod
    def load(cls, model_dir: Path) -> Self | None:
        """The template of a checkpoint folder, or None when it has none.

        Looked for in this order: chat_template.jinja (and additional_chat_templates/NAME.jinja), then
        `chat_template` in tokenizer_config.json, which is one source or a list of named ones.

        Raises:
            CheckpointError: a file that cannot be read, or a template that cannot be compiled.
        """
        config = read_json_file(model_dir / "tokenizer_config.json", required=False)
        templates = _templates_in_files(model_dir) or _templates_in_config(config, model_dir)
        return cls(templates, _special_tokens(config)) if templates else None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt text of a conversation. It holds the special tokens: tokenize it without adding any.

        Args:
            messages: plain JSON values, at least one; keys whose value is None are left out.
            tools: JSON schemas of functions the model may call.
            documents: what the answer should rest on, for templates that know them.
            add_generation_prompt: whether to end with the opening of an assistant's message.
            variables: anything else the template reads (`chat_template_kwargs` of a request); they cannot take the
                place of the arguments above.

        Raises:
            InvalidRequestError: the template refused the messages; with the template's words.
        """
        if not messages:
            raise InvalidRequestError("messages is empty; send at least one message", param="messages")
        template = self._templates["tool_use" if tools is not None and "tool_use" in self._templates else "default"]
        try:
            return template.render(
                self._special_tokens
                | dict(variables or {})
                | {
                    "messages": [_prepared(message) for message in messages],
                    "tools": tools,
                    "documents": documents,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        except jinja2.TemplateError as error:
            raise InvalidRequestError(f"the model's chat template says: {error.message}", param="messages") from error
        except _RENDER_ERRORS as error:
            raise InvalidRequestError(
                f"the model's chat template cannot render these messages: {error}", param="messages"
            ) from error


def _compile(environment: jinja2.Environment, name: str, source: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise CheckpointError(
            f"chat template {name!r} has a syntax error in line {error.lineno} ({error.message}); correct it"
        ) from error


def _prepared(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message as transformers hands it over: no None values, reasoning under the names templates read."""
    present = {key: value for key, value in message.items() if value is not None}
    for field in _REASONING_FIELDS:
        if field in present:
            return {"thinking": present[field], **present, "reasoning_content": present[field]}
    return present


def _templates_in_files(model_dir: Path) -> dict[str, str]:
    paths = {path.stem: path for path in sorted((model_dir / "additional_chat_templates").glob("*.jinja"))}
    default = model_dir / "chat_template.jinja"
    if default.exists():
        paths["default"] = default
    try:
        return {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"a chat template of {model_dir} cannot be read ({error})") from error


def _templates_in_config(config: dict[str, Any], model_dir: Path) -> dict[str, str]:
    given = config.get("chat_template")
    if given is None:
        return {}
    if isinstance(given, str):
        return {"default": given}
    try:
        return {entry["name"]: entry["template"] for entry in given}
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"chat_template in {model_dir / 'tokenizer_config.json'} is neither a template nor a list of named ones"
        ) from error


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Named special tokens; the file has each as a string or as an object with its `content`."""
    tokens = {name: config.get(name) for name in _SPECIAL_TOKENS}
    contents = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
    return {name: content for name, content in contents.items() if isinstance(content, str)}
