"""A dispatcher that charges what it does to the key of whoever asks. Not what a key may use: `router.auth.quota`."""

from collections.abc import Sequence

from core.errors import BatonError
from core.request import GenerationRequest
from router.auth.caller import current_caller
from router.auth.quota import Quota
from router.generation import Dispatcher, Generation, TokenDelta


class MeteredGeneration:
    """A `Generation` whose tokens are charged as they are read."""

    def __init__(self, generation: Generation, quota: Quota) -> None:
        """Takes over an answer whose request has begun in the quota."""
        self._generation = generation
        self._quota = quota
        self._is_open = True

    @property
    def request_id(self) -> str:
        """See `Generation.request_id`."""
        return self._generation.request_id

    @property
    def num_cached_tokens(self) -> int:
        """See `Generation.num_cached_tokens`."""
        return self._generation.num_cached_tokens

    async def read(self) -> TokenDelta:
        """See `Generation.read`."""
        try:
            delta = await self._generation.read()
        except BatonError:
            self._end()
            raise
        self._quota.spend(len(delta.token_ids))
        if delta.finish_reason is not None:
            self._end()
        return delta

    def cancel(self, *, is_answered: bool = False) -> None:
        """See `Generation.cancel`."""
        self._generation.cancel(is_answered=is_answered)
        self._end()

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._quota.end()


class MeteredDispatcher:
    """Implements `router.generation.Dispatcher` over another one.

    Args:
        dispatcher: does the work.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def submit(self, request: GenerationRequest, emitted: Sequence[int] | None = None) -> Generation:
        """See `Dispatcher.submit`.

        Raises:
            RateLimitedError: the caller's key has reached one of its limits, and the request is a new one.
        """
        quota = current_caller().quota
        if quota is None:
            return self._dispatcher.submit(request, emitted)
        if emitted is None:
            quota.begin(len(request.prompt))
        else:
            quota.go_on()
        try:
            return MeteredGeneration(self._dispatcher.submit(request, emitted), quota)
        except BaseException:
            quota.end()
            raise

    def abort(self, request_id: str, tenant: str) -> None:
        """See `Dispatcher.abort`."""
        self._dispatcher.abort(request_id, tenant)

    def unready_reason(self) -> str | None:
        """See `Dispatcher.unready_reason`."""
        return self._dispatcher.unready_reason()
