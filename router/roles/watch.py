"""What somebody who watches changes of roles is told. Sentences and arithmetic only."""

from collections.abc import Sequence

from router.roles.changes import RoleProgress, RoleStage
from router.roles.open_change import OpenChange

NO_WORK_S = 3.0  # without work of the new role for this long, there is nothing to verify a change with


def progress_of(change: OpenChange, num_leaving: int, now_s: float) -> RoleProgress:
    """Where a change stands.

    Args:
        change: of one worker.
        num_leaving: requests that are still to leave the worker.
        now_s: on the clock.
    """
    message = f"{change.change.worker.name}: {_sentence(change, num_leaving)}"
    elapsed_s = now_s - change.ordered_s
    return RoleProgress(
        change.change.worker.name, change.change.stage, message, num_leaving, elapsed_s, change=change.change
    )


def is_settled(change: OpenChange, num_leaving: int, now_s: float) -> bool:
    """Whether nothing more is to be expected: it is over, or there is no work that could prove it."""
    has_no_work = change.idle_since_s is not None and now_s - change.idle_since_s >= NO_WORK_S
    return change.is_over or (change.change.stage is RoleStage.CHANGED and has_no_work and not num_leaving)


def is_news(before: RoleProgress | None, now: RoleProgress) -> bool:
    """Whether anything but the time has changed."""
    return before is None or (before.stage, before.message) != (now.stage, now.message)


def summary(last: Sequence[RoleProgress]) -> RoleProgress:
    """The end of a watch over changes that are settled: the one that came least far decides."""
    order = (RoleStage.FAILED, RoleStage.ORDERED, RoleStage.CHANGED, RoleStage.VERIFIED)
    worst = min(last, key=lambda progress: order.index(progress.stage))
    words = {
        RoleStage.VERIFIED: "verified: work of the new role is executed, and nothing of the old one is left",
        RoleStage.CHANGED: "in the new role; there is no work yet to verify it with",
        RoleStage.FAILED: worst.message,
    }
    return RoleProgress(
        worker=worst.worker if len(last) == 1 else "",
        stage=worst.stage,
        message=words.get(worst.stage, worst.message),
        num_leaving=sum(progress.num_leaving for progress in last),
        elapsed_s=max(progress.elapsed_s for progress in last),
        is_last=True,
        change=worst.change,
    )


def _sentence(change: OpenChange, num_leaving: int) -> str:
    now = change.change
    match now.stage:
        case RoleStage.ORDERED:
            return f"has been told to go from {now.before} to {now.after}"
        case RoleStage.FAILED:
            return now.message
        case RoleStage.VERIFIED:
            moved = f"{now.num_migrated} moved, {now.num_returned} placed again, {now.num_finished} ended there"
            return (
                f"is {now.after} and works as such since {1000 * now.first_work_s:.0f} ms after the order ({moved})"
            )
        case RoleStage.CHANGED:
            works = "works as such" if change.has_worked else "has had no work of it yet"
            leaving = f"; {num_leaving} request(s) are still to leave it" if num_leaving else ""
            return f"is {now.after} since {1000 * now.changed_s:.0f} ms after the order and {works}{leaving}"
