"""One sequence on the decode half: from the announcement of its handoff to its last token."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from core.events import TokenTiming
from core.ids import WorkerId
from core.request import Assignment
from engine.kv.block_table import BlockTable
from engine.plan import Draw, SequenceSlice, SliceKind
from engine.sampling.rules import LogitRules
from kvtransfer.outgoing import Outgoing
from kvtransfer.port import BeginReply
from kvtransfer.states import TARGET_TRANSITIONS, SourceState, TargetEvent, TargetState


@dataclass(slots=True)
class Sequence:
    """A sequence and its blocks.

    Attributes:
        handoff_id: names this attempt.
        state: where the handoff is; written by `move` only.
        router_id: who assigned it; empty until then.
        assignment: what the router asked for; None until then.
        source: who has the KV; None until it begins.
        num_asked: tokens that the source asked blocks for, of a sequence that runs there; None for those of the
            prompt.
        begin_reply: tells the source its blocks; None when told or not yet asked.
        table: its blocks, reserved, then owned; None until assigned.
        tokens: generated in this attempt, the source's included; grows by `append` only.
        rules: what changes its logits, up to date with `tokens`; None until it runs, or when nothing does.
        outgoing: the sending end of its migration; None while it is to stay here.
        taken_s: when it was taken over, on the worker's clock; None before, and once it has drawn a token here.
    """

    handoff_id: str
    state: TargetState
    router_id: str = ""
    assignment: Assignment | None = None
    source: WorkerId | None = None
    num_asked: int | None = None
    begin_reply: BeginReply | None = None
    table: BlockTable | None = None
    tokens: list[int] = field(default_factory=list)
    rules: LogitRules | None = None
    outgoing: Outgoing | None = None
    taken_s: float | None = None

    @property
    def work(self) -> Assignment:
        """The assignment, which every state after OPENING has."""
        assert self.assignment is not None, f"{self.handoff_id} is {self.state} without an assignment"
        return self.assignment

    @property
    def expected_source(self) -> WorkerId | None:
        """Who has the KV or is to compute it, as it or the router has said; None until either has."""
        if self.source is None and self.assignment is not None:
            return self.assignment.prefill.worker
        return self.source

    @property
    def blocks(self) -> BlockTable:
        """The block table, which every state after OPENING has."""
        assert self.table is not None, f"{self.handoff_id} is {self.state} without a block table"
        return self.table

    @property
    def next_start(self) -> int:
        """Position in the sequence of the token that the next step computes: the last one generated.

        The KV of all tokens before it is final.
        """
        return len(self.work.prompt) + len(self.tokens) - 1

    @property
    def next_position(self) -> int:
        """Index in the answer of the token that the next step draws."""
        return self.work.first_position + len(self.tokens)

    @property
    def num_reserved_tokens(self) -> int:
        """Tokens that its source needs blocks for."""
        return max(len(self.work.prompt), self.num_asked or 0)

    @property
    def stands_still(self) -> bool:
        """Whether another worker may be about to run it, so that nothing of it is computed here."""
        return self.outgoing is not None and self.outgoing.state is SourceState.COMMITTING

    @property
    def is_being_read(self) -> bool:
        """Whether a write under way reads its blocks, so that they are not free when it ends."""
        return self.outgoing is not None and self.outgoing.is_in_flight

    def start(self, token_ids: Seq[int], now_s: float) -> None:
        """Begins to generate after the source's tokens."""
        self.taken_s = now_s
        work = self.work
        self.rules = LogitRules.of(work.sampling, work.stop_token_ids, work.prompt, work.first_position)
        for token_id in token_ids:
            self.append(token_id)

    def append(self, token_id: int) -> None:
        """Takes in a generated token."""
        self.tokens.append(token_id)
        self.blocks.append((token_id,))
        if self.rules is not None:
            self.rules.append(token_id)

    def take_timing(self, now_s: float) -> TokenTiming | None:
        """What came before the first token that was drawn here, a moment ago; None with the others."""
        if self.taken_s is None:
            return None
        taken_s, self.taken_s = self.taken_s, None
        return TokenTiming(0.0, now_s - taken_s)

    def next_slice(self) -> SequenceSlice:
        """One decode token."""
        return SequenceSlice(
            sequence_id=self.handoff_id,
            kind=SliceKind.DECODE,
            token_ids=(self.tokens[-1],),
            start=self.next_start,
            block_ids=self.blocks.block_ids,
            draw=Draw(self.work.sampling, self.next_position, self.rules),
        )

    def move(self, event: TargetEvent) -> None:
        """Takes the transition of the table; an event the state has no place for is our bug."""
        self.state = TARGET_TRANSITIONS[self.state, event]
