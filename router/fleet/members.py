"""What this router was last told of the cluster's processes. It starts and judges none of them."""

from collections.abc import Iterable, Iterator

from core.members import MemberKind, MemberState, MemberStatus


class Members:
    """Routers and workers as their supervisor sees them; none when nobody has said anything yet."""

    def __init__(self) -> None:
        self._members: tuple[MemberStatus, ...] = ()

    def __iter__(self) -> Iterator[MemberStatus]:
        return iter(self._members)

    def report(self, members: Iterable[MemberStatus]) -> None:
        """Replaces what was known, ordered by kind, then by name."""
        self._members = tuple(sorted(members, key=lambda member: (member.kind, member.name)))

    def why_missing(self) -> str:
        """Why workers do not run, one clause each, to be put behind a sentence; empty when all do."""
        clauses = [
            f"{member.name} is {member.state}" + (f": {member.reason}" if member.reason else "")
            for member in self._members
            if member.kind is MemberKind.WORKER and member.state is not MemberState.RUNNING
        ]
        return "; ".join(["", *clauses])
