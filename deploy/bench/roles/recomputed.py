"""Prompt tokens that workers computed more than once, from their totals before and after."""

from collections.abc import Iterable, Mapping

from baton.v1 import control_pb2

from deploy.bench.stream_record import StreamRecord

Totals = Mapping[tuple[str, int], int]
"""Prompt tokens computed since its start, by name and incarnation of the worker."""


def prompt_totals(status: control_pb2.GetStatusResponse) -> dict[tuple[str, int], int]:
    """Of all workers that are attached now."""
    ids = ((worker.hello.endpoint.worker, worker.load.prompt_tokens_computed) for worker in status.workers)
    return {(worker.name, worker.incarnation): total for worker, total in ids}


def tokens_recomputed(before: Totals, after: Totals, records: Iterable[StreamRecord]) -> int:
    """What was computed between two looks beyond the prompts of `records`, of which nothing was found in a cache.

    Args:
        before: at the first look.
        after: at the second, with what is known last of workers that have died in between.
        records: all requests that were computed between the two; none of them failed.
    """
    computed = sum(total - before.get(worker, 0) for worker, total in after.items())
    return computed - sum(record.num_prompt_tokens for record in records)
