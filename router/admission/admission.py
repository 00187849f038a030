"""Whether a new request is accepted: decided once, when it comes, before anything is done for it."""

from dataclasses import dataclass

from core.errors import OverloadedError
from router.admission.answer_lengths import AnswerLengths
from router.admission.outlook import Outlook
from router.admission.refusal import too_late
from router.admission.waiting_room import WaitingRoom


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What a router accepts.

    Attributes:
        ttft_s: a request whose first token, or whose place to generate, is predicted later than this is refused. Far
            above any limit that roles are chosen for: a burst of half a minute is worth waiting for, and most clients
            give up after a minute.
        max_waiting: requests that wait for a worker, see `WaitingRoom`; half of what one worker queues.
    """

    ttft_s: float = 30.0
    max_waiting: int = 2048


class Admission:
    """Weighs requests against the limits.

    Args:
        limits: what is accepted.

    Attributes:
        limits: see above.
        waiting: the accepted requests that wait; the dispatcher says who enters and who leaves.
        answers: how long they get; the dispatcher says which have ended.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self.limits = limits
        self.waiting = WaitingRoom(limits.max_waiting)
        self.answers = AnswerLengths()

    def refusal(self, tenant: str, outlook: Outlook | None, timeout_s: float) -> OverloadedError | None:
        """Why a tenant's request is not accepted; None when it is.

        Args:
            tenant: whose it is.
            outlook: what it is to expect; without one it waits for a worker of a missing role.
            timeout_s: after which it fails. One that would do so first is refused rather than left to fail.
        """
        if (refusal := self.waiting.refusal(tenant)) is not None or outlook is None:
            return refusal
        return too_late(outlook, min(self.limits.ttft_s, timeout_s))
