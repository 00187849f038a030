"""Puts a decision of the role controller into one sentence, and its numbers into a table."""

from router.roles.capacity import Load
from router.roles.decision import SplitScore
from router.roles.forecast import Forecast
from router.roles.snapshot import FleetSnapshot, Limits


def numbers(snapshot: FleetSnapshot, forecast: Forecast, load: Load) -> dict[str, float]:
    """What was predicted and measured, by name with its unit. Rates of what was not measured are left out."""
    demand, workers = snapshot.demand, snapshot.workers
    found = {
        "forecast_arrivals_per_s": forecast.arrivals_per_s,
        "forecast_prompt_tokens": forecast.prompt_tokens,
        "forecast_prompt_tokens_per_s": forecast.prompt_tokens_per_s,
        "forecast_answer_tokens": forecast.answer_tokens,
        "forecast_answer_tokens_per_s": forecast.answer_tokens_per_s,
        "queued_prompts": float(snapshot.waiting_prompts + sum(worker.queued_prompts for worker in workers)),
        "pending_prompt_tokens": float(sum(worker.pending_prompt_tokens for worker in workers)),
        "oldest_waiting_s": snapshot.oldest_waiting_s,
        "running_sequences": load.running,
        "context_tokens": float(sum(worker.context_tokens for worker in workers)),
        "ttft_limit_s": snapshot.limits.ttft_s,
        "tpot_limit_s": snapshot.limits.tpot_s,
    }
    if demand.duration_s:
        found["measured_arrivals_per_s"] = demand.num_arrived / demand.duration_s
        found["measured_prompt_tokens_per_s"] = demand.prompt_tokens / demand.duration_s
    if demand.num_first_tokens:
        found["measured_ttft_met_share"] = demand.num_ttft_met / demand.num_first_tokens
    if demand.num_finished:
        found["measured_tpot_met_share"] = demand.num_tpot_met / demand.num_finished
        found["measured_answer_tokens"] = demand.answer_tokens / demand.num_finished
    return found


def why_changed(before: SplitScore, after: SplitScore, limits: Limits) -> str:
    """Why another split is better."""
    ttft, tpot = _stays("TTFT", before.ttft_s, after.ttft_s), _stays("TPOT", before.tpot_s, after.tpot_s)
    is_ttft_worse = before.ttft_s / limits.ttft_s >= before.tpot_s / limits.tpot_s
    if is_ttft_worse and after.ttft_s < before.ttft_s:
        return (
            f"predicted TTFT {_against(before.ttft_s, limits.ttft_s)} with {_split(before)}; {_split(after)} "
            f"would hold it at {_s(after.ttft_s)}; {tpot}"
        )
    if after.tpot_s < before.tpot_s:
        return (
            f"predicted TPOT {_against(before.tpot_s, limits.tpot_s)} with {_split(before)}; {_split(after)} "
            f"would hold it at {_s(after.tpot_s)}; {ttft}"
        )
    return (
        f"{before.goodput:.2f} requests/s are predicted inside the limits with {_split(before)}, and "
        f"{after.goodput:.2f} with {_split(after)}; {ttft}; {tpot}"
    )


def why_released(before: SplitScore, after: SplitScore, margin: float) -> str:
    """Why mixed workers are not needed any more; both are predicted for `margin` times the requests that come."""
    return (
        f"mixed workers are not needed: even if {margin:g} times as many requests came, {_split(after)} would hold "
        f"TTFT at {_s(after.ttft_s)} and TPOT at {_s(after.tpot_s)} instead of {_split(before)}"
    )


def why_unchanged(now: SplitScore, best: SplitScore, limits: Limits, wanted_gain: float) -> str:
    """Why the split stays, although another may be a little better."""
    here = (
        f"{_split(now)} are predicted to bring {now.goodput:.2f} requests/s inside the limits, "
        f"TTFT {_against(now.ttft_s, limits.ttft_s)}, TPOT {_against(now.tpot_s, limits.tpot_s)}"
    )
    if best is now:
        return f"{here}; no other split brings more"
    return (
        f"{here}; {_split(best)} would bring {best.goodput - now.goodput:.2f} more, "
        f"and {wanted_gain:.2f} would be worth the change"
    )


def whats_kept(num_kept: int) -> str:
    """Adds that some workers cannot change."""
    if not num_kept:
        return ""
    is_one = num_kept == 1
    return f"; {num_kept} worker{'' if is_one else 's'} may not change now (pinned, changing, or changed just before)"


def _split(score: SplitScore) -> str:
    """Such as `3 prefill workers and 1 decode worker`."""
    numbers = ((score.num_prefill, "prefill"), (score.num_decode, "decode"), (score.num_mixed, "mixed"))
    words = [f"{number} {name} worker{'' if number == 1 else 's'}" for number, name in numbers if number]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _against(value_s: float, limit_s: float) -> str:
    return f"{_s(value_s)} {'over' if value_s > limit_s else 'within'} the limit of {_s(limit_s)}"


def _stays(name: str, before_s: float, after_s: float) -> str:
    same = _s(before_s) == _s(after_s)
    return f"{name} stays at {_s(after_s)}" if same else f"{name} goes from {_s(before_s)} to {_s(after_s)}"


def _s(seconds: float) -> str:
    return f"{seconds:.3g} s"
