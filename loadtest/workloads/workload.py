"""The requests of a load, from whatever source its settings name, for a client and for the simulator."""

from collections.abc import Iterator
from typing import Self

from loadtest.load.conversation import Conversation
from loadtest.workloads.plan import ConversationPlan
from loadtest.workloads.settings import WorkloadSettings


class Workload:
    """Settings with their files read; made once, and asked for the requests of each run of a sweep.

    Plans say what is asked; `conversations` puts them into words for a client, `simulated.arrivals_of` makes arrivals
    for the simulator of the very same. All runs have the same lengths and the same sharing. Their words differ from
    run to run, so that no run finds its prompts in a cache which an earlier one filled.
    """

    def __init__(self, settings: WorkloadSettings) -> None:
        self._settings = settings

    @classmethod
    def load(cls, settings: WorkloadSettings) -> Self:
        """Reads the trace, the data set and the tokenizer.

        Raises:
            ConfigError: a file cannot be read or has another form; says where.
            CheckpointError: there is no usable tokenizer in the folder that is named.
        """
        return cls(settings)

    def open_loop(self, rate: float | None) -> Iterator[ConversationPlan]:
        """Plans by time, lazily. Without end if synthetic, else as many as the file has.

        Args:
            rate: first turns per second; None for the trace's own times.

        Raises:
            ConfigError: there is neither a rate nor a trace.
        """
        raise NotImplementedError

    def closed_loop(self) -> Iterator[ConversationPlan]:
        """The same plans without times, lazily."""
        raise NotImplementedError

    def conversations(self, plans: Iterator[ConversationPlan], run: int) -> Iterator[Conversation]:
        """Plans with their words, lazily: about as long as it takes to copy the text.

        Args:
            plans: of this workload.
            run: number of the run; another one says the same in other words.
        """
        raise NotImplementedError

    @property
    def has_exact_lengths(self) -> bool:
        """Whether messages have as many tokens as planned; otherwise a token is taken to be a word."""
        raise NotImplementedError
