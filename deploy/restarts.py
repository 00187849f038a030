"""When a process that died is started again, and when it is given up. Has no clock and starts nothing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """What a crash loop is, and how it is slowed down.

    A death after `stable_s` of serving is an accident: the next start is at once, and all is forgotten. One before
    that is a crash. The first crash in a row has no delay either; the second has `first_delay_s`, and each one after
    it twice the delay of the one before.

    Attributes:
        stable_s: of serving, after which a death is no crash.
        first_delay_s: from the second crash to the next start.
        max_delay_s: the longest delay.
        max_crashes: in a row, after which there is no further start.
    """

    stable_s: float = 10.0  # a start that works survives its first requests
    first_delay_s: float = 1.0
    max_delay_s: float = 30.0
    max_crashes: int = 8  # a minute of delays in all: what is wrong for so long, waiting does not mend

    def delay_s(self, num_crashes: int) -> float | None:
        """Seconds from a crash to the next start; None for no further one.

        Args:
            num_crashes: in a row, this one included.
        """
        if num_crashes >= self.max_crashes:
            return None
        if num_crashes <= 1:
            return 0.0
        return float(min(self.max_delay_s, self.first_delay_s * 2 ** (num_crashes - 2)))


class CrashCount:
    """The crashes in a row of one process."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self.num_crashes = 0

    def died(self, served_s: float) -> float | None:
        """It died; seconds to its next start, or None for no further one.

        Args:
            served_s: seconds that it served before; 0 when it did not start.
        """
        self.num_crashes = 0 if served_s >= self._policy.stable_s else self.num_crashes + 1
        return self._policy.delay_s(self.num_crashes)
