"""What a simulated worker tells of its steps, as the real one's reports do."""

from typing import Protocol

from loadtest.simulator.job import Job


class WorkerObserver(Protocol):
    """Who hears what a worker has done, after the step in which it did it."""

    def on_prompt_started(self, job: Job) -> None:
        """The prompt's first chunk is in the next step."""
        ...

    def on_chunk_done(self, job: Job) -> None:
        """More of a prompt is computed, but not all of it."""
        ...

    def on_prompt_done(self, job: Job) -> None:
        """A token has come after the prompt."""
        ...

    def on_reserved(self, job: Job) -> None:
        """There is a place for a sequence, which may join."""
        ...

    def on_finished(self, job: Job) -> None:
        """The last token has come."""
        ...

    def on_preempted(self, job: Job) -> None:
        """There was no room for a sequence to grow; it has left."""
        ...

    def on_stopped(self, job: Job) -> None:
        """A sequence stands still, as asked for, and has left the batch."""
        ...
