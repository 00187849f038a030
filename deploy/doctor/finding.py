"""What a check found: a verdict, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, but slower or less safely than it could."""
    FAIL = "fail"
    """It does not work, or will not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what was looked at, such as `clock`.
        subject: whose, such as a worker's name or a pair of them.
        verdict: how bad it is.
        detail: what was found, with the values.
        remedy: what to do; empty when all is well.
    """

    check: str
    subject: str
    verdict: Verdict
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert bool(self.remedy) == (self.verdict is not Verdict.OK), f"{self.check}: a remedy for what is wrong only"


def ok(check: str, subject: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, subject, Verdict.OK, detail)


def warn(check: str, subject: str, detail: str, remedy: str) -> Finding:
    """It could be better."""
    return Finding(check, subject, Verdict.WARN, detail, remedy)


def fail(check: str, subject: str, detail: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, subject, Verdict.FAIL, detail, remedy)
