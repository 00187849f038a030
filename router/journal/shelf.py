"""How many requests that nobody works on are kept, and which go first when there are too many."""

from collections import OrderedDict

# What clients may come back for. With two minutes each, 17 requests a second that end on one router fit.
MAX_REQUESTS = 2048
MAX_TOKENS = 16 * 1024 * 1024  # of prompts and answers: 128 MiB as text in a state store, 32 bytes each in memory


class Shelf:
    """The requests of this router that have ended or stand still, oldest first.

    Args:
        max_requests: kept at most.
        max_tokens: of their prompts and answers together.
    """

    def __init__(self, max_requests: int = MAX_REQUESTS, max_tokens: int = MAX_TOKENS) -> None:
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._num_tokens: OrderedDict[str, int] = OrderedDict()
        self._total = 0

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._num_tokens

    def put(self, request_id: str, num_tokens: int) -> list[str]:
        """Keeps a request with so many tokens; returns the ids of those that must go for it, perhaps itself."""
        self.remove(request_id)
        self._num_tokens[request_id] = num_tokens
        self._total += num_tokens
        gone = []
        while len(self._num_tokens) > self._max_requests or self._total > self._max_tokens:
            oldest, num_tokens = self._num_tokens.popitem(last=False)
            self._total -= num_tokens
            gone.append(oldest)
        return gone

    def remove(self, request_id: str) -> None:
        """Somebody works on it again, or it is lost; one that is not kept is ignored."""
        self._total -= self._num_tokens.pop(request_id, 0)
