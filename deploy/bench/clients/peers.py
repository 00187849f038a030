"""Public load clients that `baton load` is compared with: how each is asked for a load, and where its figures are.

They are not dependencies: each is a program of its own, which the caller has installed.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.errors import ConfigError, InternalError

TIMEOUT_S = 900.0
MEDIAN = "p50"


@dataclass(frozen=True, slots=True)
class ClosedLoad:
    """A load that every client can make: so many requests at once, all of the same lengths, streamed.

    Attributes:
        url: of the server, without `/v1`.
        model: its name there.
        tokenizer: checkpoint folder to make prompts of the right length with.
        concurrency: requests at once.
        num_requests: in all.
        prompt_tokens: of each, without the chat template.
        answer_tokens: of each; the server is asked to ignore the end of the sequence.
    """

    url: str
    model: str
    tokenizer: Path
    concurrency: int
    num_requests: int
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class ClientFigures:
    """What a client measured.

    Attributes:
        num_answered: requests.
        ttft_ms_p50: milliseconds.
        tpot_ms_p50: milliseconds between tokens after the first, the mean of each request.
    """

    num_answered: int
    ttft_ms_p50: float
    tpot_ms_p50: float


class PeerClient(Protocol):
    """A public client.

    Attributes:
        name: of its program, too.
    """

    name: str

    def command(self, program: str, load: ClosedLoad, folder: Path) -> list[str]:
        """What to run; it writes into the folder."""
        ...

    def figures(self, folder: Path) -> ClientFigures:
        """What it wrote there."""
        ...


class AiPerf:
    """NVIDIA's aiperf (github.com/ai-dynamo/aiperf), as of 0.13."""

    name = "aiperf"

    def command(self, program: str, load: ClosedLoad, folder: Path) -> list[str]:
        """See `PeerClient.command`."""
        flags = {
            "--model": load.model,
            "--url": load.url,
            "--endpoint-type": "chat",
            "--tokenizer": str(load.tokenizer),
            "--concurrency": str(load.concurrency),
            "--request-count": str(load.num_requests),
            "--isl": str(load.prompt_tokens),
            "--isl-stddev": "0",
            "--osl": str(load.answer_tokens),
            "--osl-stddev": "0",
            "--extra-inputs": "ignore_eos:true",
            "--artifact-dir": str(folder),
            "--ui": "none",
        }
        return [program, "profile", "--streaming", "--use-server-token-count", *_flat(flags)]

    def figures(self, folder: Path) -> ClientFigures:
        """See `PeerClient.figures`."""
        found = _read_json(folder / "profile_export_aiperf.json")
        return ClientFigures(
            num_answered=int(found["request_count"]["avg"]),
            ttft_ms_p50=float(found["time_to_first_token"][MEDIAN]),
            tpot_ms_p50=float(found["inter_token_latency"][MEDIAN]),
        )


class GuideLlm:
    """Red Hat's guidellm (github.com/vllm-project/guidellm), as of 0.8."""

    name = "guidellm"

    def command(self, program: str, load: ClosedLoad, folder: Path) -> list[str]:
        """See `PeerClient.command`."""
        flags = {
            "--backend": f"kind=openai_http,target={load.url},model={load.model}",
            "--profile": f"kind=concurrent,streams={load.concurrency}",
            "--data": f"kind=synthetic_text,prompt_tokens={load.prompt_tokens},output_tokens={load.answer_tokens}",
            "--tokenizer": f"kind=huggingface_auto,model={load.tokenizer}",
            "--constraint": f"kind=max_requests,count={load.num_requests}",
            "--output": f"kind=json,path={folder / 'guidellm.json'}",
        }
        return [program, "run", "--disable-console-interactive", *_flat(flags)]

    def figures(self, folder: Path) -> ClientFigures:
        """See `PeerClient.figures`. What it calls TPOT counts the first token in; its ITL is our TPOT."""
        metrics = _read_json(folder / "guidellm.json")["benchmarks"][0]["metrics"]
        return ClientFigures(
            num_answered=int(metrics["request_totals"]["successful"]),
            ttft_ms_p50=float(metrics["time_to_first_token_ms"]["successful"]["percentiles"][MEDIAN]),
            tpot_ms_p50=float(metrics["inter_token_latency_ms"]["successful"]["percentiles"][MEDIAN]),
        )


PEERS: Mapping[str, PeerClient] = {peer.name: peer for peer in (AiPerf(), GuideLlm())}


def measure_with(peer: PeerClient, program: str, load: ClosedLoad, folder: Path) -> ClientFigures:
    """Has a public client make the load.

    Args:
        peer: which.
        program: its executable.
        load: what.
        folder: an empty one for its files.

    Raises:
        ConfigError: there is no such program, or it cannot be run.
        InternalError: it did not end; or it wrote no figures, and the error holds the end of what it said.
    """
    try:
        finished = subprocess.run(  # noqa: S603 - the program that the caller names
            peer.command(program, load, folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InternalError(
            f"{peer.name} has not ended after {TIMEOUT_S:g} s; ask for fewer --requests, or a smaller --step-ms"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{peer.name} cannot be started as {program!r} ({error.strerror}); pip install {peer.name} into an "
            f"environment of its own, and say --peer {peer.name}=PATH"
        ) from error
    try:
        return peer.figures(folder)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        said = finished.stdout[-2000:]
        raise InternalError(
            f"{peer.name} ended with status {finished.returncode} and wrote no figures ({error!r}): {said}"
        ) from error


def _flat(flags: Mapping[str, str]) -> list[str]:
    return [part for flag in flags.items() for part in flag]


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the client wrote
    return json.loads(path.read_text(encoding="utf-8"))
