"""What a load asks a server: conversations of one or more turns. Not when answers come: that is `record`'s."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: as the API names it: `system`, `user` or `assistant`.
        content: its text.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: what is added to the conversation before the server is asked for its next answer.

    Attributes:
        messages: added behind all earlier ones and the answers the server gave to them; at least one.
        answer_tokens: to ask for at most, and exactly where the end-of-sequence token is to be ignored; at least one.
        prompt_tokens: of `messages` alone, without the chat template; None when nobody counted.
        think_s: seconds between the end of the answer before and this request; of a first turn it means nothing.
    """

    messages: tuple[Message, ...]
    answer_tokens: int
    prompt_tokens: int | None = None
    think_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Conversation:
    """Requests that come one after the other, each with the answers to those before it.

    Attributes:
        at_s: when the first is to be sent, in seconds since the load began; None for as soon as there is room among
            those that a closed loop has at once.
        turns: at least one.
    """

    at_s: float | None
    turns: tuple[Turn, ...]
