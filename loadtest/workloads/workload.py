"""The requests of a load, from whatever source its settings name, for a client and for the simulator."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Self

from core.errors import ConfigError
from loadtest.load.conversation import Conversation
from loadtest.workloads.plan import ConversationPlan
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.sharegpt import RecordedConversations, read_conversations
from loadtest.workloads.synthetic import synthetic_plans
from loadtest.workloads.traced import TracedRequests, read_trace
from loadtest.workloads.wordbook import ASSUMED, confirmed_words
from loadtest.workloads.writer import Writer
from router.text.tokenizer import TextCodec


class Workload:
    """Settings with their files read; made once, and asked for the requests of each run of a sweep.

    Plans say what is asked; `conversations` puts them into words for a client, `simulated.arrivals_of` makes arrivals
    for the simulator of the very same. All runs have the same lengths and the same sharing. Words that were not
    recorded differ from run to run, so that no run finds its prompts in a cache which an earlier one filled.
    """

    def __init__(
        self, settings: WorkloadSettings, source: TracedRequests | RecordedConversations | None, words: Sequence[str]
    ) -> None:
        """Puts the parts together; `load` reads them from files."""
        self._settings = settings
        self._source = source
        self._words = words

    @classmethod
    def load(cls, settings: WorkloadSettings) -> Self:
        """Reads the trace, the data set and the tokenizer.

        Raises:
            ConfigError: a file cannot be read or has another form; says where.
            CheckpointError: there is no usable tokenizer in the folder that is named.
        """
        codec = None if settings.tokenizer is None else TextCodec.load(settings.tokenizer)
        return cls(settings, _source(settings, codec), ASSUMED if codec is None else _words_of(codec))

    def open_loop(self, rate: float | None) -> Iterator[ConversationPlan]:
        """Plans by time, lazily. Without end if synthetic, else as many as the file has.

        Args:
            rate: first turns per second; None for the trace's own times.

        Raises:
            ConfigError: there is neither a rate nor a trace, or `--arrivals` or `--time-scale` would mean nothing.
        """
        settings = self._settings
        if rate is not None:
            if settings.time_scale is not None:
                raise ConfigError(f"--time-scale is {settings.time_scale}, but the trace's times make way for a rate")
            return self._at(settings.process().times(rate, settings.seed))
        if not isinstance(self._source, TracedRequests):
            raise ConfigError("a rate is needed: only a --trace has times of its own")
        if settings.arrivals is not None:
            raise ConfigError(f"--arrivals is {settings.arrivals}, but the trace has its own times; give a rate, too")
        return self._source.plans()

    def closed_loop(self) -> Iterator[ConversationPlan]:
        """The same plans without times, lazily.

        Raises:
            ConfigError: `--arrivals` or `--time-scale` would mean nothing.
        """
        for flag, value in (("--arrivals", self._settings.arrivals), ("--time-scale", self._settings.time_scale)):
            if value is not None:
                raise ConfigError(f"{flag} is {value}, but in a closed loop requests wait for answers; leave it out")
        return self._at(itertools.repeat(None))

    def _at(self, times: Iterator[float | None]) -> Iterator[ConversationPlan]:
        if self._source is None:
            return synthetic_plans(self._settings, times)
        return self._source.plans_at(times)

    def conversations(self, plans: Iterator[ConversationPlan], run: int) -> Iterator[Conversation]:
        """Plans with their words, lazily: a prompt costs little more than copying its text.

        Args:
            plans: of this workload.
            run: number of the run; another one says the same in other words.
        """
        return Writer(self._words, f"{self._settings.seed} {run}").conversations(plans)


def _source(settings: WorkloadSettings, codec: TextCodec | None) -> TracedRequests | RecordedConversations | None:
    if settings.trace is not None:
        return read_trace(settings, settings.trace)
    if settings.dataset is None:
        return None
    return RecordedConversations(
        conversations=read_conversations(settings.dataset),
        is_multi_turn=settings.multi_turn,
        count=_count_words if codec is None else partial(_count_tokens, codec),
        answers=None if settings.answer_tokens is None else settings.answer(),
        thinking=settings.thinking(),
        seed=settings.seed,
    )


def _words_of(codec: TextCodec) -> tuple[str, ...]:
    chat_tokens = partial(_count_chat_tokens, codec) if codec.has_chat_template else None
    return confirmed_words(codec, chat_tokens)


def _count_chat_tokens(codec: TextCodec, message: str) -> int:
    return len(codec.encode_chat([{"role": "user", "content": message}]))


def _count_words(text: str) -> int:
    return len(text.split())


def _count_tokens(codec: TextCodec, text: str) -> int:
    return len(codec.encode(text, add_special_tokens=False))
