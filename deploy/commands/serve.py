"""`baton serve`: starts a cluster, asks it one question, and serves until it is told to stop."""

import contextlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from core.errors import BatonError
from core.hosts import is_loopback
from deploy.chat_client import AnswerUsage, stream_answer
from deploy.config import ServeConfig
from deploy.demo_model import ensure_demo_model
from deploy.flags import flags_from
from deploy.run_record import RunRecord, record_of_this_process
from deploy.security import client_tls

if TYPE_CHECKING:
    from deploy.cluster import ClusterAddresses

FIRST_ANSWER_TOKENS = 64


class StopSignal:
    """Turns SIGINT and SIGTERM into one event; a second one, or SIGQUIT, says that nothing is to be waited for."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._is_interruptible = False
        self._is_hurried = False

    def install(self) -> None:
        """Takes over the signals; from the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, self._on_signal)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within, a signal raises KeyboardInterrupt, so that start-up can be stopped too."""
        self._is_interruptible = True
        try:
            yield
        finally:
            self._is_interruptible = False

    def wait(self) -> None:
        """Until a signal comes. None raises from now on."""
        self._is_interruptible = False
        self._event.wait()

    def has_come_again(self) -> bool:
        """Whether nothing is to be waited for any more."""
        return self._is_hurried

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._is_hurried = self._is_hurried or self._event.is_set() or number == signal.SIGQUIT
        if not self._event.is_set():
            self._event.set()
            if self._is_interruptible:
                raise KeyboardInterrupt


@flags_from(ServeConfig)
def serve(config: ServeConfig) -> None:
    """Start a cluster, on this machine or on the nodes of a Ray cluster, and serve until Ctrl-C."""
    from deploy.cluster import run_cluster  # noqa: PLC0415 - Ray and the router; no other command waits for them

    console = Console(stderr=True, highlight=False)
    say = progress_lines(console)
    stop = StopSignal()
    with contextlib.suppress(KeyboardInterrupt):
        model_dir = config.model or ensure_demo_model()
        stop.install()
        with stop.interrupting(), run_cluster(config, model_dir, say, stop.has_come_again) as cluster:
            stop.install()  # Ray has set its own handler meanwhile
            serve_until_stopped(config, cluster, stop, console)
    console.print("stopped; no process is left")


def serve_until_stopped(config: ServeConfig, cluster: "ClusterAddresses", stop: StopSignal, console: Console) -> None:
    """The time between ready and the signal."""
    record = record_of_this_process(
        url=cluster.url,
        grpc_address=cluster.grpc_address,
        model=config.model_name,
        log_dir=str(cluster.log_dir),
        drain_timeout_s=config.drain_timeout_s,
        tls=client_tls(config),
    )
    record.write()
    try:
        if config.ask:
            ask_first_question(cluster.url, config.model_name, config.ask, console)
        print_directions(cluster, config.model_name, console, record)
        print_exposure(config, console)
        stop.wait()
    finally:
        console.print("stopping; requests under way end first, unless Ctrl-C comes again ...", style="dim")
        record.remove()


def progress_lines(console: Console) -> Callable[[str], None]:
    """A function that prints what happens next, with the seconds since the start."""
    started_s = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started_s:6.1f} s[/]  {line}")

    return say


def ask_first_question(url: str, model: str, question: str, console: Console) -> None:
    """Shows that the whole path works. The answer goes to stdout, all else to stderr."""
    console.print(f"\n[bold]you[/]    {question}\n[bold]{model}[/]   ", end="")
    messages = [{"role": "user", "content": question}]
    asked_s = time.monotonic()
    first_s: float | None = None
    try:
        options = {"max_completion_tokens": FIRST_ANSWER_TOKENS, "temperature": 0}
        for piece in stream_answer(url, model, messages, options=options):
            if isinstance(piece, AnswerUsage):
                continue
            first_s = first_s or time.monotonic()
            sys.stdout.write(piece)
            sys.stdout.flush()
    except BatonError as error:
        console.print(f"\n[red]the first question failed:[/] {error}")
        return
    sys.stdout.write("\n")
    sys.stdout.flush()
    if first_s is not None:
        console.print(f"[dim]       first token after {(first_s - asked_s) * 1000:.0f} ms[/]")


def print_directions(cluster: "ClusterAddresses", model: str, console: Console, record: RunRecord) -> None:
    """What to type next."""
    files = {"--cacert": record.ca_file, "--cert": record.cert_file, "--key": record.key_file}
    tls = "".join(f" {option} {shlex.quote(path)}" for option, path in files.items() if path)
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    console.print(f"\nserving [bold]{model}[/] at [bold]{cluster.url}[/]  (gRPC {cluster.grpc_address})")
    console.print(
        f"  curl{tls} {cluster.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'",
        soft_wrap=True,
    )
    console.print(f"  baton chat --url {cluster.url}    baton status    logs: {cluster.log_dir}", soft_wrap=True)
    console.print("Ctrl-C stops it\n")


def print_exposure(config: ServeConfig, console: Console) -> None:
    """One line, when whoever reaches this machine may use the cluster and nobody has said that this is meant."""
    if config.api_keys_file is None and not is_loopback(config.host):
        console.print(
            f"[yellow]anyone who reaches {config.host} can use this cluster and give it orders:[/] "
            "--api-keys-file asks for keys",
            soft_wrap=True,
        )
