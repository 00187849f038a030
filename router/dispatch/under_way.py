"""The requests that have been accepted and have not ended, by their ids and by their clients' names for them."""

from collections.abc import ValuesView

from core.errors import InvalidRequestError, UnknownRequestError
from router.describe import describe
from router.dispatch.generation import ActiveGeneration


class UnderWay:
    """Finds requests; knows nothing of what happens to them.

    A request that came from another router, or came back, has its name while no new one of its tenant takes it: its
    client may not know that it goes on, and ask anew under the same name.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, ActiveGeneration] = {}
        self._by_name: dict[tuple[str, str], ActiveGeneration] = {}  # by tenant and name

    def __len__(self) -> int:
        return len(self._by_id)

    def values(self) -> ValuesView[ActiveGeneration]:
        """All of them, in order of arrival."""
        return self._by_id.values()

    def oldest_waiting_s(self, now_s: float) -> float:
        """For how long the oldest request without a first token has waited that may not have started.

        Where a worker says that it has no prompt queued, all its prompts have started.
        """
        waiting = (
            generation.times.arrived_s
            for generation in self._by_id.values()
            if not generation.answer.tokens
            and (generation.attempt is None or generation.attempt.prefill.load.queued_prompts)
        )
        return max(0.0, now_s - min(waiting, default=now_s))

    def check_name(self, tenant: str, name: str) -> None:
        """Makes sure that a tenant may call a new request so.

        Raises:
            InvalidRequestError: it has one of that name under way, which was new here as well.
        """
        holder = self._by_name.get((tenant, name))
        if holder is not None and holder.is_new:
            raise InvalidRequestError(
                f"request_id is {describe(name)}, and a request of that name is under way; choose another",
                param="request_id",
            )

    def add(self, generation: ActiveGeneration) -> None:
        """One has been accepted; the name of a new one is checked."""
        request = generation.request
        self._by_id[request.request_id] = generation
        if request.name and (generation.is_new or (request.tenant, request.name) not in self._by_name):
            self._by_name[request.tenant, request.name] = generation

    def remove(self, generation: ActiveGeneration) -> None:
        """It has ended."""
        request = generation.request
        del self._by_id[request.request_id]
        if self._by_name.get((request.tenant, request.name)) is generation:
            del self._by_name[request.tenant, request.name]

    def find(self, tenant: str, request_id: str) -> ActiveGeneration:
        """A request of a tenant, by its id or its name.

        Raises:
            UnknownRequestError: the tenant has none here; whether another has is not said.
        """
        generation = self._by_id.get(request_id)
        if generation is None or generation.request.tenant != tenant:
            generation = self._by_name.get((tenant, request_id))
        if generation is None:
            raise UnknownRequestError(
                f"no request {describe(request_id)} is under way at this router; it may have ended, or be served by "
                "another router",
                param="request_id",
            )
        return generation
