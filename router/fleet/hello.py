"""What a worker says of itself when the router attaches."""

from dataclasses import dataclass

from core.ids import WorkerEndpoint
from core.request import Role


@dataclass(frozen=True, slots=True)
class WorkerHello:
    """Facts that hold until the stream ends.

    Attributes:
        endpoint: the worker's id and address.
        role: which half it is for.
        role_epoch: grows with every change of role; goes back with every assignment.
        fingerprint: of model and serving type.
        layout: of its KV blocks, as (field, value) pairs; the router only compares them.
        block_tokens: tokens per KV block.
        num_blocks: blocks in its pool.
        max_num_seqs: sequences that decode at once at most.
        max_model_len: tokens of prompt plus answer at most.
    """

    endpoint: WorkerEndpoint
    role: Role
    role_epoch: int
    fingerprint: str
    layout: tuple[tuple[str, int | str], ...]
    block_tokens: int
    num_blocks: int
    max_num_seqs: int
    max_model_len: int

    def difference(self, other: "WorkerHello") -> str | None:
        """Why two workers cannot serve the same requests, with both values, or None if they can."""
        if self.fingerprint != other.fingerprint:
            return f"model fingerprint {self.fingerprint} against {other.fingerprint}"
        for (name, mine), (_, theirs) in zip(self.layout, other.layout, strict=True):
            if mine != theirs:
                return f"KV layout: {name} {mine} against {theirs}"
        if self.max_model_len != other.max_model_len:
            return f"max_model_len {self.max_model_len} against {other.max_model_len}"
        return None
