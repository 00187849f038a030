"""What is known of a request from its start: all that another router needs to go on with it. Not its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.request import FinishReason, GenerationRequest

Rendering = Mapping[str, str | bool]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request as its journal keeps it.

    Attributes:
        request: what to generate; its seed is drawn, its tenant is who may ask for the answer again.
        stops: strings that end the answer.
        created_s: when it came, in seconds since 1970.
        deadline_s: when it fails if it has not ended, likewise.
        fingerprint: of what the client sent; a client that asks again must send the same.
        rendering: how the front end that took it sends its answer; empty for gRPC.
        is_kept: whether it runs to its end also when nobody reads it, since a client may ask for it by a key.
    """

    request: GenerationRequest
    stops: tuple[str, ...]
    created_s: float
    deadline_s: float
    fingerprint: str
    rendering: Rendering = field(default_factory=dict)
    is_kept: bool = False

    @property
    def request_id(self) -> str:
        """Names it, over the fleet and all routers."""
        return self.request.request_id

    def finish_reason(self, token_ids: Sequence[int]) -> FinishReason | None:
        """Why the workers ended an answer of these tokens; None when they have not.

        The rule is that of `core.request.Assignment.finish_reason`. Stop strings are not workers' business.
        """
        if token_ids and token_ids[-1] in self.request.stop_token_ids:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(token_ids) >= self.request.max_tokens else None
