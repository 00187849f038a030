"""`baton chat`: a conversation in the terminal, over the HTTP API. Needs no cluster, only a URL."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from core.errors import BatonError
from deploy.chat_client import AnswerUsage, first_model, open_client, stream_answer

HELP = "/reset forgets the conversation, /quit leaves (as does Ctrl-D); Ctrl-C stops an answer."
PROMPT = "> "


class Conversation:
    """A conversation with one model; what was said so far goes with every question."""

    def __init__(
        self, client: httpx.Client, model: str, system: str | None, options: dict[str, Any], console: Console
    ) -> None:
        """Answers are written to stdout; `console` gets what is about them."""
        self._client = client
        self._model = model
        self._options = options
        self._console = console
        self._opening = [] if system is None else [{"role": "system", "content": system}]
        self._messages = list(self._opening)

    def reset(self) -> None:
        """Forgets everything but the system prompt."""
        self._messages = list(self._opening)

    def ask(self, question: str) -> None:
        """Asks, and writes the answer while it arrives. Ctrl-C ends it; what has arrived is kept.

        Raises:
            BatonError: no answer; the question is forgotten.
        """
        asked = [*self._messages, {"role": "user", "content": question}]
        answer = _Answer()
        pieces = stream_answer("", self._model, asked, options=self._options, client=self._client)
        stopped = False
        try:
            with contextlib.closing(pieces):
                answer.write(pieces)
        except KeyboardInterrupt:
            stopped = True
        finally:
            answer.end()
        if answer.text:
            self._messages = [*asked, {"role": "assistant", "content": answer.text}]
        self._console.print(
            f"[stopped] {answer.summary()}" if stopped else answer.summary(), style="dim", markup=False
        )


class _Answer:
    """One answer on its way to the terminal, and its timing."""

    def __init__(self) -> None:
        self.text = ""
        self._usage: AnswerUsage | None = None
        self._asked_s = time.monotonic()
        self._first_s: float | None = None
        self._last_s = self._asked_s

    def write(self, pieces: Iterator[str | AnswerUsage]) -> None:
        for piece in pieces:
            if isinstance(piece, AnswerUsage):
                self._usage = piece
                continue
            self._last_s = time.monotonic()
            self._first_s = self._first_s or self._last_s
            self.text += piece
            sys.stdout.write(piece)
            sys.stdout.flush()

    def end(self) -> None:
        if self.text:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def summary(self) -> str:
        parts = []
        if self._usage is not None:
            parts.append(f"{self._usage.completion_tokens} tokens")
        if self._first_s is not None:
            parts.append(f"TTFT {(self._first_s - self._asked_s) * 1000:.0f} ms")
            if self._usage is not None and self._last_s > self._first_s:
                # The first token is what TTFT measures; the rate is of those after it.
                parts.append(f"{(self._usage.completion_tokens - 1) / (self._last_s - self._first_s):.1f} tok/s")
        return ", ".join(parts) or "no answer"


def chat(
    *,
    url: Annotated[str, typer.Option(help="Where the router listens.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="Default: the first that the server lists.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Ask this one question and leave.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer. Default: all that fit.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy. Default: the model's.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Default: the model's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
) -> None:
    """Talk to the model in the terminal, or ask one question with -m."""
    console = Console(stderr=True, highlight=False)
    options = {"max_completion_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    try:
        with open_client(url) as client:
            conversation = Conversation(client, model or first_model(client), system, options, console)
            if message is not None:
                conversation.ask(message)
            elif sys.stdin.isatty():
                _talk(conversation, console)
            else:
                _answer_lines(conversation)
    except BatonError as error:
        console.print(error.message, style="red", markup=False)
        raise typer.Exit(1) from None


def _talk(conversation: Conversation, console: Console) -> None:
    """Reads questions from a terminal until Ctrl-D, Ctrl-C or /quit. A failed question does not end it."""
    with contextlib.suppress(ImportError):
        __import__("readline")  # gives `input` line editing and history
    console.print(HELP, style="dim", markup=False)
    while (line := _read_line()) is not None:
        try:
            if not _handle(line, conversation, console):
                return
        except BatonError as error:
            console.print(error.message, style="red", markup=False)


def _read_line() -> str | None:
    try:
        return input(PROMPT)
    except (EOFError, KeyboardInterrupt):
        print()
        return None


def _answer_lines(conversation: Conversation) -> None:
    """Every line of a pipe is a question; the first that fails ends it."""
    console = Console(stderr=True, highlight=False)
    for line in sys.stdin:
        if not _handle(line, conversation, console):
            return


def _handle(line: str, conversation: Conversation, console: Console) -> bool:
    """Does what a line says; returns whether to go on."""
    match line.strip():
        case "":
            pass
        case "/quit":
            return False
        case "/reset":
            conversation.reset()
            console.print("The conversation is forgotten.", style="dim", markup=False)
        case command if command.startswith("/"):
            console.print(HELP, style="dim", markup=False)
        case question:
            conversation.ask(question)
    return True
