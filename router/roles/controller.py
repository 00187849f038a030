"""Decides which worker is for prompts and which for tokens. Pure: same snapshots, same decisions; it orders nothing.

    snapshot -> forecast -> what each split would bring -> the best, if it is worth the change

It looks at the fleet every second or so. Two things keep it from following noise: a split must be better than staying
by more than a share of the demand, and a worker keeps its role for a while. When a limit is about to be broken, the
second hardly counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from router.roles import explain
from router.roles.capacity import Load
from router.roles.decision import Decision
from router.roles.flip_memory import FlipMemory
from router.roles.forecast import Forecaster
from router.roles.kinds import Kinds
from router.roles.roster import Roster, Split
from router.roles.settings import ControllerSettings
from router.roles.snapshot import FleetSnapshot, Limits, WorkerView
from router.roles.survey import Option, Survey

CALM_SHARE = 0.95
"""While this part of the requests is predicted to be inside both limits, no limit is about to be broken."""
CALM_WAIT_SHARE = 0.5
"""The same while the oldest prompt has waited for less than this part of its limit."""
BUFFER_MARGIN = 1.5
"""Mixed workers are not needed when the others would do for so many times the requests, lest noise switch them."""
MOST_OPTIONS = 5
"""Splits that a decision keeps beside the present one."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one decision rests on: the workers count in the roles that they have been ordered to take."""

    snapshot: FleetSnapshot
    workers: tuple[WorkerView, ...]
    kinds: Kinds
    load: Load

    def roster(self, is_free: Callable[[WorkerView], bool]) -> Roster:
        """The workers, of which some may change."""
        return Roster(self.workers, self.kinds, is_free)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which split is to be, and why."""

    split: Split
    reason: str
    options: tuple[Option, ...] = ()


class RoleController:
    """Looks at one fleet. `decide` is called with each snapshot, in order of their time, 0.25 to 10 s apart."""

    def __init__(self, settings: ControllerSettings | None = None) -> None:
        self._settings = settings or ControllerSettings()
        self._forecaster = Forecaster(self._settings)
        self._memory = FlipMemory()
        self._broken_since_s: float | None = None  # since when a half has had no worker

    def decide(self, snapshot: FleetSnapshot) -> Decision:
        """What to do now. Its flips are taken to be ordered; one that fails is tried again later."""
        forecast = self._forecaster.observe(snapshot.demand)
        workers = self._memory.effective(snapshot)
        kinds = Kinds(workers)
        look = Look(snapshot, workers, kinds, Load.of(snapshot, forecast, kinds))
        now = look.roster(lambda _: False).split()
        verdict = self._verdict(look, now)
        decision = Decision(
            at_s=snapshot.now_s,
            reason=verdict.reason,
            num_prefill=len(now.prefill),
            num_decode=len(now.decode),
            wanted_prefill=len(verdict.split.prefill),
            wanted_decode=len(verdict.split.decode),
            flips=verdict.split.flips,
            numbers=explain.numbers(snapshot, forecast, look.load),
            options=tuple(option.score for option in verdict.options),
        )
        self._memory.note(decision)
        return decision

    def _verdict(self, look: Look, now: Split) -> Verdict:
        settings = self._settings
        any_time = look.roster(self._freedom(look.snapshot, 0.0))
        if any_time.num_workers == 0:
            self._broken_since_s = None
            return Verdict(now, "no worker takes work")
        if not now.is_whole:
            return self._mended(look, any_time, now)
        self._broken_since_s = None
        if any_time.num_workers == 1:
            return Verdict(now, "the only worker that takes work serves both halves")
        survey = Survey(look.kinds, look.load, settings)
        present = survey.weigh(now)
        roster = look.roster(self._freedom(look.snapshot, settings.dwell_s))
        options = survey.options(roster)
        is_calm = _is_calm(look.snapshot, present)
        if not is_calm:
            options += survey.buffered(look.roster(self._freedom(look.snapshot, settings.emergency_dwell_s)))
        wanted_gain = settings.min_gain * look.load.requests(settings.horizon_s) / settings.horizon_s
        verdict = _better(present, options, wanted_gain, look.snapshot.limits, roster.num_kept)
        if is_calm and now.mixed and verdict.split is now:
            return self._released(look, now) or verdict
        return verdict

    def _mended(self, look: Look, roster: Roster, now: Split) -> Verdict:
        """What to do where a half has no worker: nothing until it is likely that none comes back."""
        now_s, patience_s = look.snapshot.now_s, self._settings.patience_s
        if self._broken_since_s is None:
            self._broken_since_s = now_s
        broken_s = now_s - self._broken_since_s
        if broken_s < patience_s:
            left_s = patience_s - broken_s
            return Verdict(
                now, f"no worker is for {_missing(now)}; one may still come: roles stay for {left_s:.0f} s"
            )
        return _repaired(roster, Survey(look.kinds, look.load, self._settings), now)

    def _released(self, look: Look, now: Split) -> Verdict | None:
        """A split with fewer mixed workers, if it would do even if more came; None when they are needed."""
        roster = look.roster(self._freedom(look.snapshot, self._settings.release_s))
        forecast = look.load.forecast
        more = replace(forecast, arrivals_per_s=BUFFER_MARGIN * forecast.arrivals_per_s)
        survey = Survey(look.kinds, replace(look.load, forecast=more), self._settings)
        options = [option for option in survey.plain(roster) if len(option.split.mixed) < len(now.mixed)]
        able = [option for option in options if option.share_in_time >= CALM_SHARE]
        if not able:
            return None
        best = next((option for option in able if option.split.prefill == now.prefill), able[0])
        reason = explain.why_released(survey.weigh(now).score, best.score, BUFFER_MARGIN)
        return Verdict(best.split, reason, tuple(options[:MOST_OPTIONS]))

    def _freedom(self, snapshot: FleetSnapshot, dwell_s: float) -> Callable[[WorkerView], bool]:
        """Whether a worker may change after such a dwell time. What was refused is not ordered again at once."""
        retry_s = max(dwell_s, self._settings.emergency_dwell_s)

        def is_free(worker: WorkerView) -> bool:
            if worker.is_pinned or worker.is_cordoned or worker.is_changing:
                return False
            ordered_s = self._memory.since_ordered_s(worker, snapshot.now_s)
            return snapshot.now_s - worker.since_s >= dwell_s and ordered_s >= retry_s

        return is_free


def _is_calm(snapshot: FleetSnapshot, present: Option) -> bool:
    """Whether no limit is about to be broken."""
    waits = snapshot.oldest_waiting_s > CALM_WAIT_SHARE * snapshot.limits.ttft_s
    return not waits and present.share_in_time >= CALM_SHARE


def _repaired(roster: Roster, survey: Survey, now: Split) -> Verdict:
    """One half has no worker: whatever it costs, it gets one. A single worker serves both halves."""
    if roster.num_workers == 1:
        alone = roster.all_mixed()
        name = (*now.prefill, *now.decode)[0]
        if not alone.flips:
            return Verdict(
                now,
                f"{name}, the only worker that takes work, would have to serve both halves, but must not change now",
            )
        return Verdict(alone, f"{name} is the only worker that takes work; it has to serve both halves")
    missing, options = _missing(now), survey.options(roster)
    if not options:
        return Verdict(now, f"no worker is for {missing}, and none may become one: unpin or uncordon one")
    best = options[0]
    names = ", ".join(flip.worker for flip in best.split.flips)
    return Verdict(best.split, f"no worker was left for {missing}; {names} will be", tuple(options[:MOST_OPTIONS]))


def _missing(now: Split) -> str:
    return "tokens" if now.prefill else "prompts"


def _better(present: Option, options: Sequence[Option], wanted_gain: float, limits: Limits, num_kept: int) -> Verdict:
    """The best split, if it is better by enough; else the present one."""
    shown = (present, *(option for option in options if option.split.flips))
    shown = tuple(sorted(shown, key=lambda option: -option.score.goodput))
    kept = shown[:MOST_OPTIONS] if present in shown[:MOST_OPTIONS] else (*shown[:MOST_OPTIONS], present)
    best = shown[0]
    if best.score.goodput - present.score.goodput > wanted_gain:
        return Verdict(best.split, explain.why_changed(present.score, best.score, limits), kept)
    reason = explain.why_unchanged(present.score, best.score, limits, wanted_gain)
    return Verdict(present.split, f"{reason}{explain.whats_kept(num_kept)}", kept)
