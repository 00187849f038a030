"""What a load asks, without its words: lengths, times and what is shared. Both readers begin here.

`loadtest.workloads.writer` makes prompts of it that a server can be sent, `loadtest.workloads.simulated` arrivals for
the simulator, so that both see the same requests.
"""

from dataclasses import dataclass

import xxhash


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a message.

    Attributes:
        key: names its content: pieces of one key begin alike, whatever their lengths. 64 bits.
        num_tokens: its length; at least one.
        text: what it says; None for words that follow from the key.
        is_shared: whether other conversations may have it, too.
    """

    key: int
    num_tokens: int
    text: str | None = None
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """A message.

    Attributes:
        role: as the API names it.
        pieces: of which its content is put together, in order; at least one.
    """

    role: str
    pieces: tuple[Piece, ...]

    @property
    def num_tokens(self) -> int:
        """Without the chat template's."""
        return sum(piece.num_tokens for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """A request of a conversation.

    Attributes:
        messages: added behind all earlier ones and their answers.
        answer_tokens: at least one.
        think_s: seconds between the end of the answer before and this request.
    """

    messages: tuple[MessagePlan, ...]
    answer_tokens: int
    think_s: float = 0.0

    @property
    def num_tokens(self) -> int:
        """Of its messages alone."""
        return sum(message.num_tokens for message in self.messages)


@dataclass(frozen=True, slots=True)
class ConversationPlan:
    """Requests that come one after the other.

    Attributes:
        at_s: when the first comes, in seconds since the load began; None in a closed loop.
        turns: at least one.
    """

    at_s: float | None
    turns: tuple[TurnPlan, ...]


def piece_key(*parts: object) -> int:
    """A key that depends on all parts and on nothing else, so it is the same in every process."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode())


def user_message(*pieces: Piece) -> tuple[MessagePlan, ...]:
    """The messages of a turn that only a user adds to."""
    return (MessagePlan("user", pieces),)
