"""What tenants have been served, and so whose turn it is. Not what waits: `core.fair_line`.

The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): who has been
served least goes next, and who comes back from idle is lifted to the least of those that are here, so that nobody
saves up turns. Of two tenants that always have something waiting, the counters then differ by no more than what is
served at one go, whatever they ask for, and the service they get over any time by no more than twice that; there it
is 2 max(w_p L_input, w_q M), with the weights below, the longest prompt, and the tokens that fit a batch.
"""

from collections import Counter

PROMPT_WEIGHT = 1
ANSWER_WEIGHT = 2  # the paper's, after what vendors charge: a token of an answer takes a place in a step of its own
MAX_IDLE_TENANTS = 4096  # remembered; one that is forgotten comes back as if it had never been served


class TokenCounters:
    """A counter for each tenant. A tenant is *here* as long as something of it waits or is being served."""

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._num_here: Counter[str] = Counter()
        self._last_left = 0  # counter of the tenant that was the last to leave

    def of(self, tenant: str) -> int:
        """What a tenant's turn depends on: the smaller, the sooner."""
        return self._counters.get(tenant, 0)

    def enter(self, tenant: str) -> None:
        """Something of a tenant is here; each is to leave once."""
        if not self._num_here[tenant]:
            least = min((self.of(each) for each in self._num_here), default=self._last_left)
            self._counters[tenant] = max(self.of(tenant), least)
        self._num_here[tenant] += 1

    def leave(self, tenant: str) -> None:
        """What entered is done with, or nobody wants it."""
        self._num_here[tenant] -= 1
        if not self._num_here[tenant]:
            del self._num_here[tenant]
            self._last_left = self.of(tenant)
            self._bound_idle()

    def serve(self, tenant: str, *, num_prompt_tokens: int = 0, num_answer_tokens: int = 0) -> None:
        """Counts tokens computed for a tenant, whether it is here or not."""
        cost = PROMPT_WEIGHT * num_prompt_tokens + ANSWER_WEIGHT * num_answer_tokens
        if cost:
            self._counters[tenant] = self.of(tenant) + cost
            self._bound_idle()

    def _bound_idle(self) -> None:
        """Forgets the idle tenant with the smallest counter, who has the least to gain from that."""
        if len(self._counters) > len(self._num_here) + MAX_IDLE_TENANTS:
            idle = (tenant for tenant in self._counters if tenant not in self._num_here)
            del self._counters[min(idle, key=self.of)]
