"""Whether clocks agree. Leases and deadlines do not depend on that; logs, traces and certificates do."""

from deploy.doctor.finding import Finding, ok, warn

MAX_SKEW_S = 1.0  # more than a hello or a call is under way


def clock_finding(name: str, skew_s: float) -> Finding:
    """By how many seconds a clock is ahead of the one it is compared with."""
    detail = f"{abs(skew_s):.2f} s {'ahead' if skew_s > 0 else 'behind'}"
    if abs(skew_s) > MAX_SKEW_S:
        return warn("clock", name, detail, "run an NTP client (chrony, systemd-timesyncd) on every machine")
    return ok("clock", name, detail)
