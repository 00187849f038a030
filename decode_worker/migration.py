"""One sequence on its way to another worker, and totals of all that have gone."""

from dataclasses import dataclass

from core.request import MIGRATION_HEADROOM_TOKENS
from decode_worker.sequence import Sequence
from kvtransfer.outgoing import Outgoing


@dataclass(slots=True)
class MigrationStats:
    """Totals since the start of the process.

    Attributes:
        num_sent: sequences that their targets took over.
        num_failed: those that were to go and did not, or of which nobody knows; not those that ended here first.
        pause_s: seconds in which sequences stood still, from the last step here to the target's answer.
        longest_pause_s: the longest of these.
    """

    num_sent: int = 0
    num_failed: int = 0
    pause_s: float = 0.0
    longest_pause_s: float = 0.0

    def paused(self, pause_s: float) -> None:
        """Counts a sequence that has stood still."""
        self.pause_s += pause_s
        self.longest_pause_s = max(self.longest_pause_s, pause_s)


@dataclass(slots=True)
class Migration:
    """A sequence on its way to another worker.

    Attributes:
        sequence: it.
        handoff: the sending end, under the id of the attempt that is to go on with it.
        is_answered: whether the router has been told how it ended, or does not want to know.
        has_ended_here: whether only the writes that still read the blocks keep it in the books.
    """

    sequence: Sequence
    handoff: Outgoing
    is_answered: bool = False
    has_ended_here: bool = False


def num_wanted(sequence: Sequence) -> int:
    """Tokens that a target is to reserve blocks for: those there are, and as many as may come until it takes over."""
    num_at_most = len(sequence.work.prompt) + sequence.work.max_new_tokens
    return min(sequence.next_start + 1 + MIGRATION_HEADROOM_TOKENS, num_at_most)
