import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from core.errors import CheckpointError, InvalidRequestError
from router.text.chat_template import ChatTemplate
from router.text.tokenizer import TextCodec
from tests.router.text.small_tokenizers import EOS, byte_level

USER = {"role": "user", "content": "Wie heißt die Hauptstadt von <b>Frankreich</b>? 😀"}
ASSISTANT = {"role": "assistant", "content": "Paris.", "reasoning": "They ask for France."}
TOOL_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": [1, 2]}}}
    ],
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "q": "<&'\""}}}]
MESSAGES = [{"role": "system", "content": "Be brief."}, USER, ASSISTANT, USER, TOOL_CALL]

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + (message.content or '') + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TRICKY = {
    "chatml": CHATML,
    "blocks_trimmed": "{% for m in messages %}\n   {% if 1 %}\n  {{ m.role }}\n    {% endif %}\n{% endfor %}\nend\n",
    "tojson": "{{ tools | tojson }}|{{ messages | tojson(indent=2) }}|{{ tools | tojson(sort_keys=true) }}",
    "tojson_ascii": "{{ messages[1].content | tojson(true) }}{{ tools | tojson(separators=(',', ':')) }}",
    "special_tokens": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}",
    "loop_controls": (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.role }}"
        "{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}"
    ),
    "namespace": (
        "{% set ns = namespace(last=none, self=1) %}{% for m in messages %}{% set ns.last = m.role %}{% endfor %}"
        "{{ ns.last }}{{ ns.self }}"
    ),
    "dict": "{{ dict(a=1) }}{{ dict.fromkeys(['x', 'y'], 0) }}",
    "generation": (
        "{% for m in messages %}{% generation %}{{ m.role }}{% if m.content %}: {{ m.content }}{% endif %}\n"
        "{% endgeneration %}\n{% endfor %}"
    ),
    "reasoning": "{% for m in messages %}{{ m.reasoning_content }}/{{ m.thinking }}/{{ m.reasoning }};{% endfor %}",
    "missing": "{% for m in messages %}{{ 'content' in m }}{{ m.tool_calls is defined }}{{ m.nothing }}{% endfor %}",
    "tool_calls": "{% for c in messages[-1].tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}",
    "variables": "{{ enable_thinking is defined and enable_thinking }}{{ documents is none }}{{ tools | length }}",
    "year": "{{ strftime_now('%Y') }}",
    "macro": "{% macro m(x) -%}  [{{ x }}]\n{%- endmacro %}{{ m('a') }}{{ m(messages[0].content.upper()) }}",
}


def hf_tokenizer(chat_template: str | dict[str, str] | None = None) -> PreTrainedTokenizerFast:
    special_tokens = {"bos_token": "<bos>", "eos_token": EOS}
    return PreTrainedTokenizerFast(tokenizer_object=byte_level(), chat_template=chat_template, **special_tokens)


@pytest.mark.parametrize("name", TRICKY)
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_render_equals_transformers(name: str, add_generation_prompt: bool) -> None:
    expected = hf_tokenizer().apply_chat_template(
        MESSAGES,
        tools=TOOLS,
        chat_template=TRICKY[name],
        add_generation_prompt=add_generation_prompt,
        tokenize=False,
        enable_thinking=True,
    )
    template = ChatTemplate({"default": TRICKY[name]}, {"bos_token": "<bos>", "eos_token": EOS})
    assert expected == template.render(
        MESSAGES, tools=TOOLS, add_generation_prompt=add_generation_prompt, variables={"enable_thinking": True}
    )


@pytest.mark.demo
@pytest.mark.parametrize("messages", [[USER], MESSAGES[:3], [USER, {"role": "assistant", "content": ""}, USER]])
def test_demo_chat_equals_transformers(
    demo_model_dir: Path, demo_codec: TextCodec, messages: list[dict[str, Any]]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_model_dir)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert demo_codec.render_chat(messages) == text
    assert demo_codec.encode_chat(messages) == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.demo
def test_demo_chat_without_system_message_has_smollm_default(demo_codec: TextCodec) -> None:
    assert demo_codec.render_chat([{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def saved(path: Path, save_jinja_files: bool, chat_template: str | dict[str, str]) -> Path:
    hf_tokenizer(chat_template).save_pretrained(path, save_jinja_files=save_jinja_files)
    return path


@pytest.mark.parametrize("save_jinja_files", [True, False])
def test_load_single_template_of_saved_tokenizer(tmp_path: Path, save_jinja_files: bool) -> None:
    template = ChatTemplate.load(saved(tmp_path, save_jinja_files, chat_template="{{ bos_token }}{{ eos_token }}"))
    assert template is not None
    assert template.render([USER]) == "<bos><eos>"


@pytest.mark.parametrize("save_jinja_files", [True, False])
def test_load_named_templates_tools_choose_tool_use(tmp_path: Path, save_jinja_files: bool) -> None:
    named = {"default": "plain", "tool_use": "tools"}
    template = ChatTemplate.load(saved(tmp_path, save_jinja_files, chat_template=named))
    assert template is not None
    assert template.render([USER]) == "plain"
    assert template.render([USER], tools=TOOLS) == "tools"


def test_load_special_token_written_as_object(tmp_path: Path) -> None:
    config = {"chat_template": "{{ bos_token }}", "bos_token": {"content": "<s>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = ChatTemplate.load(tmp_path)
    assert template is not None
    assert template.render([USER]) == "<s>"


def test_load_folder_without_template_is_none(tmp_path: Path) -> None:
    assert ChatTemplate.load(tmp_path) is None


@pytest.mark.parametrize("given", [[{"name": "default"}], 5, [1]])
def test_load_malformed_template_list_is_refused(tmp_path: Path, given: object) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": given}))
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        ChatTemplate.load(tmp_path)


def test_load_syntax_error_names_line(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("ok\n{% if %}")
    with pytest.raises(CheckpointError, match="line 2"):
        ChatTemplate.load(tmp_path)


def test_named_templates_without_default_are_refused() -> None:
    with pytest.raises(CheckpointError, match="default"):
        ChatTemplate({"rag": ""})


def test_render_template_refuses_with_its_own_words() -> None:
    template = ChatTemplate({"default": "{{ raise_exception('Only user messages, please') }}"})
    with pytest.raises(InvalidRequestError, match="Only user messages, please") as caught:
        template.render([USER])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' + messages[0].content }}",  # content given as a list of parts
        "{{ messages[0].absent.name }}",
        "{{ messages[5].role.upper() }}",
        "{{ range(99999999) | list }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{% set ns = namespace(__class__=1) %}",
        "{{ 1 / 0 }}",
    ],
)
def test_render_failure_inside_template_is_an_invalid_request(source: str) -> None:
    template = ChatTemplate({"default": source})
    with pytest.raises(InvalidRequestError):
        template.render([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}])


def test_render_no_messages_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="at least one"):
        ChatTemplate({"default": ""}).render([])


def test_render_variables_cannot_replace_messages() -> None:
    template = ChatTemplate({"default": "{{ messages | length }}{{ self_made }}"})
    assert template.render([USER], variables={"messages": [], "self_made": "x"}) == "1x"
