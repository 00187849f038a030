"""Plans as arrivals for the simulator: the same requests at the same times, what they share as ids of blocks."""

import heapq
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import xxhash

from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.workloads.plan import ConversationPlan, Piece, piece_key


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast answers are taken to be between the turns of a conversation: arrivals do not wait for a simulation.

    Attributes:
        first_token_s: from a request to its first token.
        token_s: for each further one.
    """

    first_token_s: float = 0.0
    token_s: float = 0.0

    def answer_s(self, num_tokens: int) -> float:
        """What an answer takes."""
        return self.first_token_s + (num_tokens - 1) * self.token_s


def arrivals_of(plans: Iterator[ConversationPlan], block_tokens: int, pace: Pace | None = None) -> Iterator[Arrival]:
    """The requests of plans by time, lazily.

    Later turns hold all earlier ones and their answers, which are as long as planned. Tokens of a chat template are
    outside the count.

    Args:
        plans: by the time of their first turns.
        block_tokens: of the blocks that ids are for: `WorkerSpec.prefix_block_tokens`.
        pace: when later turns come; None where conversations have one.

    Raises:
        ConfigError: plans have no times, or further turns and no pace; when the first such plan is reached.
    """
    later: list[tuple[float, int, Arrival]] = []
    number = 0
    for conversation, plan in enumerate(plans):
        arrivals = _arrivals(plan, conversation, block_tokens, pace)
        while later and later[0][0] <= arrivals[0].at_s:
            yield heapq.heappop(later)[2]
        for arrival in arrivals:
            heapq.heappush(later, (arrival.at_s, number := number + 1, arrival))
    while later:
        yield heapq.heappop(later)[2]


def _arrivals(plan: ConversationPlan, conversation: int, block_tokens: int, pace: Pace | None) -> list[Arrival]:
    if plan.at_s is None:
        raise ConfigError("a closed loop has no times to simulate; give a rate, or a trace with its own")
    if len(plan.turns) > 1 and pace is None:
        raise ConfigError("when later turns come depends on the answers; give a pace of these, or take one turn")
    at_s, said, arrivals = plan.at_s, list[Piece](), list[Arrival]()
    for number, turn in enumerate(plan.turns):
        at_s += turn.think_s
        said += [piece for message in turn.messages for piece in message.pieces]
        num_tokens = sum(piece.num_tokens for piece in said)
        num_shared = num_tokens if number < len(plan.turns) - 1 else _shared_tokens(said)
        block_ids = _block_ids(said, num_shared // block_tokens, block_tokens)
        arrivals.append(Arrival(at_s, num_tokens, turn.answer_tokens, block_ids))
        at_s += pace.answer_s(turn.answer_tokens) if pace is not None else 0.0
        said.append(Piece(piece_key("answer", conversation, number), turn.answer_tokens, is_shared=True))
    return arrivals


def _shared_tokens(pieces: Sequence[Piece]) -> int:
    """Leading tokens which another request may have: up to the end of the last shared piece."""
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + piece.num_tokens)
    return max((end for piece, end in zip(pieces, ends[1:], strict=True) if piece.is_shared), default=0)


def _block_ids(pieces: Sequence[Piece], num_blocks: int, block_tokens: int) -> tuple[int, ...]:
    """Names of whole blocks, each of its content and of all before it.

    pieces:   |---- 7 ----|-- 5 --|---------- 11 ----------|
    blocks:   |--- 4 ---|--- 4 ---|--- 4 ---|--- 4 ---|
    """
    ids: list[int] = []
    parts = [0]  # the name of the block before, and what stands in this one
    room = block_tokens
    for piece in pieces:
        begin = 0
        while begin < piece.num_tokens and len(ids) < num_blocks:
            length = min(room, piece.num_tokens - begin)
            parts += (piece.key, begin, length)
            begin, room = begin + length, room - length
            if room == 0:
                ids.append(xxhash.xxh3_64_intdigest(array("Q", parts).tobytes()))
                parts, room = [ids[-1]], block_tokens
    return tuple(ids)
