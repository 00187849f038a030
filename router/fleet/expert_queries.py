"""Questions about experts that are open at one worker. Used from the event loop only."""

import asyncio
import itertools

from core.errors import DeadlineError, UnavailableError
from core.experts import ExpertReport

ANSWER_TIMEOUT_S = 60.0  # the worker answers between two steps; a rebalancing reads experts from disk first


class ExpertQueries:
    """Matches answers to questions by id; an answer that nobody waits for is dropped.

    Args:
        worker: the worker's id, for people.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._ids = itertools.count(1)
        self._open: dict[str, asyncio.Future[ExpertReport]] = {}

    def open(self) -> str:
        """A new question's id; `answer` must be awaited."""
        query_id = str(next(self._ids))
        self._open[query_id] = asyncio.get_running_loop().create_future()
        return query_id

    async def answer(self, query_id: str) -> ExpertReport:
        """Waits for the answer to an open question.

        Raises:
            DeadlineError: none came in time.
            UnavailableError: the worker was lost meanwhile.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._open[query_id]
        except TimeoutError:
            message = f"worker {self._worker} did not answer within {ANSWER_TIMEOUT_S:g} s; see `baton status`"
            raise DeadlineError(message) from None
        finally:
            del self._open[query_id]

    def resolve(self, report: ExpertReport) -> None:
        """An answer has come."""
        future = self._open.get(report.query_id)
        if future is not None and not future.done():
            future.set_result(report)

    def fail(self) -> None:
        """The worker is lost: nothing open will be answered."""
        for future in self._open.values():
            if not future.done():
                future.set_exception(UnavailableError(f"worker {self._worker} was lost; ask again"))
