import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.errors import ConfigError
from deploy.cli import app
from deploy.commands.plan import choice_of, sizes_of
from deploy.commands.plan_tables import roles_words
from deploy.planning.settings import PlanSettings, load_of
from engine.parallel.topology import ShardTopology

SMALL = ["plan", "--model", "ernie-4.5-0.3b", "--quantization", "none", "--tp", "1", "--ep", "1"]
LOAD = ["--prompt-tokens", "512", "--answer-tokens", "64", "--rate", "20", "--duration-s", "3"]


def run(*arguments: str) -> str:
    """What the command printed."""
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def error_of(*arguments: str) -> str:
    answer = CliRunner().invoke(app, ["plan", *arguments])
    assert isinstance(answer.exception, ConfigError), answer.output
    return answer.exception.message


def test_small_load_needs_one_gpu(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    text = run(*SMALL, *LOAD, "--json", str(path))
    assert "1 H800 on 1 node(s)" in text
    assert "all for both halves" in text
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["asked"]["--rate"] == 20.0
    assert (found["plan"]["num_gpus"], found["plan"]["roles"], found["plan"]["attainment"]) == (1, "mixed", 1.0)
    assert found["outlooks"][0]["trials"] == [found["plan"]]
    assert found["outlooks"][0]["why_lost"] is None
    assert found["misfits"] == []
    assert found["checks"] == [
        {
            "name": "plan_attainment", "value": 1.0, "unit": "of requests inside both limits", "target": ">= 0.9",
            "holds": True,
        }
    ]  # fmt: skip


def test_no_plan_is_said_and_missed(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    text = run(*SMALL, *LOAD, "--slo-tpot-ms", "0.1", "--json", str(path))
    assert "No plan of up to 512 GPUs keeps the goal." in text
    assert "TPOT: a step with one sequence takes" in text
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["plan"] is None
    assert found["checks"][0]["holds"] is False


def test_published_figure_is_printed_beside_the_prediction(tmp_path: Path) -> None:
    path = tmp_path / "published.json"
    text = run("plan", "--reproduce", "ernie-300b", "--json", str(path))
    assert "quoted second-hand" in text
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [figure["name"] for figure in found["figures"]] == [
        "input_tokens_per_s", "output_tokens_per_s", "requests_per_s",
    ]  # fmt: skip
    for figure in found["figures"]:
        assert figure["ratio"] == pytest.approx(figure["value"] / figure["published"])
    assert found["checks"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "1"], "--model is missing; pass a checkpoint folder or one of ernie-4.5-0.3b, "),
        (["--model", "ernie-4.5-0.3b", "--gpu", "A10"], "--gpu is 'A10', whose speed is not known"),
        (["--model", "ernie-4.5-0.3b", "--kv-dtype", "int3"], "--kv-dtype is 'int3'; it must be one of"),
        (["--model", "ernie-4.5-0.3b", "--tp", "3"], "--tp is 3; it must be a power of two, at most 8 (one node)"),
        (
            ["--model", "ernie-4.5-0.3b", "--ep", "2"],
            "--ep is 2; it must be a power of two, at most 8 (one node), and --ep 1 for",
        ),
        (["--model", "ernie-4.5-0.3b"], "a rate is needed"),
        (
            ["--model", "ernie-4.5-0.3b", "--rate", "1", "--prompt-tokens", "131000", "--answer-tokens", "73"],
            "the longest request of the load has 131,073 tokens with its answer, the model's context 131,072; ",
        ),
        (["--rate", "0"], "--rate is 0.0; it must be a positive number"),
        (["--slo-tpot-ms", "-1"], "--slo-tpot-ms is -1.0; it must be a positive number"),
        (["--attainment", "1.5"], "--attainment is 1.5; it must be a share above 0, at most 1"),
        (
            ["--reproduce", "ernie-300b", "--gpu", "H20"],
            "--reproduce has its own model, GPUs and load; leave out --gpu",
        ),
        (
            ["--reproduce", "ernie-300b", "--json", "no/such/folder.json"],
            "--json no/such/folder.json cannot be written: No such file or directory; name another file",
        ),
        (["--reproduce", "x"], "--reproduce is 'x'; it must be one of ernie-300b"),
    ],
)
def test_wrong_flag_is_told(arguments: list[str], message: str) -> None:
    assert error_of(*arguments).startswith(message)


def test_model_that_fits_nothing_is_told_with_the_numbers() -> None:
    told = error_of("--model", "ernie-4.5-300b-a47b", "--quantization", "none", "--rate", "1")
    assert told == (
        "no worker of H800 is possible; tp 8, ep 1, none: does not fit: 75.0 GB of weights and 2.8 GB of "
        "activations on each GPU, of which 77.0 GB are usable; take other sizes, GPUs with more memory, or fewer bits"
    )


def test_sizes_that_are_asked_for_are_the_only_ones() -> None:
    settings = PlanSettings(model="ernie-4.5-300b-a47b", tp=8)
    choice = choice_of(settings)
    sizes = sizes_of(settings, choice.shape, choice.gpu)
    assert [(size.tensor_parallel_size, size.expert_parallel_size) for size in sizes] == [(8, 1), (8, 8)]
    both = PlanSettings(model="ernie-4.5-300b-a47b", tp=1, ep=8)
    assert sizes_of(both, choice.shape, choice.gpu) == [ShardTopology(1, 8)]
    with pytest.raises(
        ConfigError, match="--tp 1 and --ep 16 are 16 GPUs, a node has 8; the ranks of a worker are on"
    ):
        sizes_of(replace(both, ep=16), choice.shape, choice.gpu)


def test_trace_is_taken_whole_or_for_a_time(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:15:{second:02}.0000000,{100 + second},7\n" for second in range(10)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(rows), encoding="utf-8")
    whole, part = (load_of(PlanSettings(trace=trace, duration_s=seconds)) for seconds in (None, 4.0))
    assert [arrival.prompt_tokens for arrival in whole] == list(range(100, 110))
    assert part == whole[:4]


def test_load_without_a_request_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no request comes in 0.001 s; raise --duration-s or --rate"):
        load_of(PlanSettings(rate=1.0, duration_s=0.001))


@pytest.mark.parametrize(
    ("policy", "words"),
    [("static:2:3", "2 prefill, 3 decode"), ("mixed", "all for both halves")],
)
def test_roles_are_in_words(policy: str, words: str) -> None:
    assert roles_words(policy) == words
