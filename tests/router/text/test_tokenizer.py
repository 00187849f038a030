import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import CheckpointError, InvalidRequestError
from core.sampling import SamplingParams
from router.text.model_files import TextDefaults
from router.text.token_pieces import TokenPiece
from router.text.tokenizer import TextCodec
from tests.router.text.small_tokenizers import EOS, byte_level


def write_checkpoint(path: Path, *, config: dict[str, Any], generation: dict[str, Any] | None = None) -> Path:
    byte_level().save(str(path / "tokenizer.json"))
    (path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return path


def test_load_takes_defaults_from_both_configs(tmp_path: Path) -> None:
    codec = TextCodec.load(
        write_checkpoint(
            tmp_path,
            config={"vocab_size": 300, "max_position_embeddings": 64, "eos_token_id": 7},
            generation={
                "temperature": 0.2,
                "top_p": 0.9,
                "top_k": 20,
                "min_p": 0.1,
                "repetition_penalty": 1,
                "presence_penalty": 0.5,
                "frequency_penalty": -0.5,
                "eos_token_id": [256, 3],
            },
        )
    )
    assert codec.vocab_size == 300
    assert codec.context_length == 64
    assert codec.eos_token_ids == {256, 3}
    filters = {"temperature": 0.2, "top_p": 0.9, "top_k": 20, "min_p": 0.1}
    assert codec.default_sampling == SamplingParams(**filters, presence_penalty=0.5, frequency_penalty=-0.5)


def test_load_without_generation_config_uses_config(tmp_path: Path) -> None:
    codec = TextCodec.load(write_checkpoint(tmp_path, config={"eos_token_id": 7}))
    assert codec.eos_token_ids == {7}
    assert codec.default_sampling == SamplingParams()
    assert codec.vocab_size == 257
    assert codec.context_length is None


def test_encode_decode_round_trip_with_written_special_token(tmp_path: Path) -> None:
    codec = TextCodec.load(write_checkpoint(tmp_path, config={}))
    token_ids = codec.encode(f"é{EOS}", add_special_tokens=False)
    assert len(token_ids) == 3
    assert codec.decode(token_ids) == "é"
    assert codec.token_piece(token_ids[-1]) == TokenPiece(EOS, EOS.encode())


def test_load_training_truncation_is_switched_off(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config={})
    tokenizer = byte_level()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(TextCodec.load(tmp_path).encode("abcd", add_special_tokens=True)) == 4


def test_render_chat_without_template_is_refused(tmp_path: Path) -> None:
    codec = TextCodec.load(write_checkpoint(tmp_path, config={}))
    assert not codec.has_chat_template
    with pytest.raises(InvalidRequestError, match="no chat template"):
        codec.render_chat([{"role": "user", "content": "Hi"}])


def test_load_missing_tokenizer_names_file_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing .*save_pretrained"):
        TextCodec.load(tmp_path)


def test_load_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        TextCodec.load(tmp_path)


def test_load_missing_config_is_refused(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        TextCodec.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "generation", "message"),
    [
        ({"vocab_size": "many"}, {}, "vocab_size"),
        ({"max_position_embeddings": 0}, {}, "max_position_embeddings"),
        ({"eos_token_id": [2, "x"]}, {}, "eos_token_id"),
        ({}, {"temperature": "hot"}, "temperature"),
        ({}, {"temperature": 5}, "temperature is 5"),
        ({}, {"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({}, {"min_p": [0.1]}, "min_p"),
        ({}, {"top_p": 0}, "top_p is 0"),
    ],
)
def test_defaults_unusable_value_is_named(
    tmp_path: Path, config: dict[str, Any], generation: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        TextDefaults.load(write_checkpoint(tmp_path, config=config, generation=generation))


@pytest.mark.parametrize("content", ["[1]", "{", "\xff"])
def test_defaults_file_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        TextDefaults.load(tmp_path)


@pytest.mark.demo
def test_demo_defaults(demo_codec: TextCodec) -> None:
    assert demo_codec.vocab_size == 49152
    assert demo_codec.context_length == 8192
    assert demo_codec.eos_token_ids == {2}
    assert demo_codec.default_sampling == SamplingParams(temperature=0.2, top_p=0.9)


def test_router_text_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, router.text.stream, router.text.tokenizer\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
