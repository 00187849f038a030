"""Protobuf on the router's side of the attach stream.

Not here: what a worker says of itself (`router.hello_wire`), of its experts (`router.expert_wire`) and of what it has
moved (`router.transfer_wire`).
"""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate

from baton.v1 import common_pb2, worker_pb2

from core.errors import ConfigError, UnavailableError
from core.events import ReturnedWork, TokenTiming, WorkerLoad
from core.ids import WorkerEndpoint, WorkerId
from core.kv_events import KvEvents, KvSnapshot, split_names
from core.logprobs import TokenLogprobs
from core.request import Assignment, FinishReason, PrefixSource, Role
from core.roles import RoleOrder, RoleRefusal, RoleState
from core.sampling import SamplingParams
from core.token_runs import TokenRun

FINISH_FROM_PROTO = {
    common_pb2.FINISH_REASON_UNSPECIFIED: None,
    common_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    common_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}
FINISH_TO_PROTO = {reason: number for number, reason in FINISH_FROM_PROTO.items()}
ROLE_FROM_PROTO = {
    common_pb2.ROLE_PREFILL: Role.PREFILL,
    common_pb2.ROLE_DECODE: Role.DECODE,
    common_pb2.ROLE_MIXED: Role.MIXED,
}
ROLE_TO_PROTO = {role: number for number, role in ROLE_FROM_PROTO.items()}
SAME_VERSION = "run the same version of Baton on routers and workers"


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one worker step brought for this router.

    Attributes:
        runs: tokens, those of one sequence in the order of generation.
        returned: work given back, after the tokens.
        load: the worker's load after the step.
        kv_events: block names that the worker got or lost in it; None when there are none.
        kv_snapshot: a part of all its block names.
    """

    runs: list[TokenRun] = field(default_factory=list)
    returned: list[ReturnedWork] = field(default_factory=list)
    load: WorkerLoad = field(default_factory=WorkerLoad)
    kv_events: KvEvents | None = None
    kv_snapshot: KvSnapshot | None = None


def worker_id_to_proto(worker: WorkerId) -> common_pb2.WorkerId:
    """A worker's id."""
    return common_pb2.WorkerId(name=worker.name, incarnation=worker.incarnation)


def worker_id_from_proto(message: common_pb2.WorkerId) -> WorkerId:
    """Inverse of `worker_id_to_proto`."""
    return WorkerId(message.name, message.incarnation)


@lru_cache(maxsize=4096)  # all workers of a large fleet; each goes with every request that it gets, twice
def endpoint_to_proto(endpoint: WorkerEndpoint) -> common_pb2.WorkerEndpoint:
    """A worker's id and address; not to be changed."""
    return common_pb2.WorkerEndpoint(worker=worker_id_to_proto(endpoint.worker), address=endpoint.address)


def endpoint_from_proto(message: common_pb2.WorkerEndpoint) -> WorkerEndpoint:
    """Inverse of `endpoint_to_proto`."""
    return WorkerEndpoint(worker_id_from_proto(message.worker), message.address)


def role_state_from_proto(worker: WorkerId, message: worker_pb2.RoleState) -> RoleState:
    """What a worker is for.

    Raises:
        ConfigError: it says a role that this router does not know.
    """
    role = ROLE_FROM_PROTO.get(message.role)
    if role is None:
        raise ConfigError(f"worker {worker} says its role is number {message.role}; {SAME_VERSION}")
    return RoleState(
        role,
        message.role_epoch,
        message.is_cordoned,
        message.is_pinned,
        message.order_id,
        message.revision,
        message.is_leaving,
    )


def role_state_to_proto(state: RoleState) -> worker_pb2.RoleState:
    """Inverse of `role_state_from_proto`."""
    return worker_pb2.RoleState(
        role=ROLE_TO_PROTO[state.role],
        role_epoch=state.epoch,
        is_cordoned=state.is_cordoned,
        is_pinned=state.is_pinned,
        order_id=state.order_id,
        revision=state.revision,
        is_leaving=state.is_leaving,
    )


def role_order_to_proto(order: RoleOrder) -> worker_pb2.AttachRequest:
    """A wish to change what a worker is for."""
    return worker_pb2.AttachRequest(
        set_role=worker_pb2.SetRole(
            order_id=order.order_id,
            role=ROLE_TO_PROTO[order.role],
            role_epoch=order.epoch,
            is_cordoned=order.is_cordoned,
            is_pinned=order.is_pinned,
            revision=order.revision,
        )
    )


def role_refusal_from_proto(message: worker_pb2.RoleRefusal) -> RoleRefusal:
    """Why an order changed nothing."""
    return RoleRefusal(message.order_id, message.role_epoch, message.message)


def migration_to_proto(handoff_id: str, new: Assignment) -> worker_pb2.AttachRequest:
    """An order for the worker that runs `handoff_id`: it is to go on as `new`, at the worker that decodes that."""
    return worker_pb2.AttachRequest(
        migrate=worker_pb2.MigrateWork(
            handoff_id=handoff_id, new_handoff_id=new.handoff_id, target=endpoint_to_proto(new.decode)
        )
    )


def leave_to_proto(drain_timeout_s: float | None) -> worker_pb2.AttachRequest:
    """An order to end, within so many seconds or as the worker is set; see `Leave`."""
    return worker_pb2.AttachRequest(leave=worker_pb2.Leave(drain_timeout_s=drain_timeout_s))


def recall_to_proto(num_tokens: int) -> worker_pb2.AttachRequest:
    """A wish to have prompts back that have not started."""
    return worker_pb2.AttachRequest(return_queued=worker_pb2.ReturnQueued(num_tokens=num_tokens))


def load_from_proto(message: worker_pb2.WorkerLoad) -> WorkerLoad:
    """A worker's load; both sides name the fields alike."""
    return WorkerLoad(**{name: getattr(message, name) for name in WorkerLoad.__slots__})


def load_to_proto(load: WorkerLoad) -> worker_pb2.WorkerLoad:
    """Inverse of `load_from_proto`."""
    return worker_pb2.WorkerLoad(**{name: getattr(load, name) for name in WorkerLoad.__slots__})


def report_from_proto(message: worker_pb2.StepReport) -> StepReport:
    """One step's message.

    Raises:
        UnavailableError: it says something this router does not know.
    """
    returned = [ReturnedWork(w.handoff_id, w.code, w.message, w.retryable) for w in message.returned]
    return StepReport(
        runs_from_proto(message.runs),
        returned,
        load_from_proto(message.load),
        _kv_events_from_proto(message.kv_events) if message.HasField("kv_events") else None,
        _kv_snapshot_from_proto(message.kv_snapshot) if message.HasField("kv_snapshot") else None,
    )


def _kv_events_from_proto(message: worker_pb2.KvEvents) -> KvEvents:
    return KvEvents(message.first, split_names(message.stored), split_names(message.dropped))


def _kv_snapshot_from_proto(message: worker_pb2.KvSnapshot) -> KvSnapshot:
    return KvSnapshot(message.next, split_names(message.names), message.is_last)


def runs_from_proto(message: worker_pb2.TokenRuns) -> list[TokenRun]:
    """Generated tokens.

    Raises:
        UnavailableError: they are not what a worker of this version says.
    """
    names, positions = tuple(message.handoff_ids), tuple(message.positions)
    lengths, token_ids = tuple(message.lengths), tuple(message.token_ids)
    if not (len(names) == len(positions) == len(lengths) and all(lengths) and sum(lengths) == len(token_ids)):
        columns = (
            f"{len(names)} names, {len(positions)} positions, {len(lengths)} lengths and {len(token_ids)} tokens"
        )
        raise UnavailableError(f"runs of tokens came as {columns}, which do not fit; {SAME_VERSION}")
    rows = zip(names, positions, lengths, accumulate(lengths), strict=True)
    runs = [TokenRun(name, position, token_ids[end - length : end]) for name, position, length, end in rows]
    for details in message.details:
        if details.run >= len(runs):
            raise UnavailableError(f"details of run {details.run} came with {len(runs)} runs; {SAME_VERSION}")
        runs[details.run] = _detailed(runs[details.run], details)
    return runs


def _detailed(run: TokenRun, details: worker_pb2.TokenRunDetails) -> TokenRun:
    if details.finish_reason not in FINISH_FROM_PROTO:
        raise UnavailableError(
            f"the finish reason of {run.handoff_id} is number {details.finish_reason}; {SAME_VERSION}"
        )
    timing = TokenTiming(details.timing.queue_s, details.timing.compute_s) if details.HasField("timing") else None
    return run._replace(
        finish_reason=FINISH_FROM_PROTO[details.finish_reason],
        logprobs=tuple(map(logprobs_from_proto, details.logprobs)),
        cached_tokens=details.cached_tokens,
        timing=timing,
    )


def logprobs_from_proto(message: common_pb2.TokenLogprobs) -> TokenLogprobs:
    """Log-probabilities at one position."""
    return TokenLogprobs(message.token_id, message.logprob, tuple(message.top_ids), tuple(message.top_logprobs))


def logprobs_to_proto(logprobs: TokenLogprobs) -> common_pb2.TokenLogprobs:
    """Inverse of `logprobs_from_proto`."""
    return common_pb2.TokenLogprobs(**{name: getattr(logprobs, name) for name in TokenLogprobs.__slots__})


def sampling_to_proto(sampling: SamplingParams) -> common_pb2.SamplingParams:
    """How tokens are chosen."""
    return common_pb2.SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logit_bias=dict(sampling.logit_bias),
        bad_words=[common_pb2.BadWord(token_ids=word) for word in sampling.bad_words],
        min_tokens=sampling.min_tokens,
        logprobs=sampling.logprobs,
    )


def assignment_to_proto(assignment: Assignment, role_epoch: int) -> worker_pb2.AttachRequest:
    """An order for the worker that is at `role_epoch`."""
    order = worker_pb2.AttachRequest()
    work = order.assign  # filled where it is: protobuf would copy what is made elsewhere
    work.handoff_id = assignment.handoff_id
    work.prompt.extend(assignment.prompt)
    work.first_position = assignment.first_position
    work.max_new_tokens = assignment.max_new_tokens
    work.sampling.CopyFrom(sampling_to_proto(assignment.sampling))
    work.stop_token_ids.extend(sorted(assignment.stop_token_ids))
    work.prefill.CopyFrom(endpoint_to_proto(assignment.prefill))
    work.decode.CopyFrom(endpoint_to_proto(assignment.decode))
    work.role_epoch = role_epoch
    work.cache_salt = assignment.cache_salt
    if assignment.prefix_source is not None:
        work.prefix_source.CopyFrom(_prefix_source_to_proto(assignment.prefix_source))
    work.tenant = assignment.tenant
    work.priority = assignment.priority
    work.tenant_answer_tokens = assignment.tenant_answer_tokens
    return order


def _prefix_source_to_proto(source: PrefixSource) -> worker_pb2.PrefixSource:
    return worker_pb2.PrefixSource(
        source=endpoint_to_proto(source.endpoint), num_tokens=source.num_tokens, expected_s=source.expected_s
    )


def worker_gone_to_proto(worker: WorkerId) -> worker_pb2.AttachRequest:
    """Says that a process of a worker, and every earlier one of its name, is dead."""
    return worker_pb2.AttachRequest(worker_gone=worker_pb2.WorkerGone(worker=worker_id_to_proto(worker)))


def cancel_to_proto(handoff_id: str) -> worker_pb2.AttachRequest:
    """An order to drop an attempt."""
    return worker_pb2.AttachRequest(cancel=worker_pb2.CancelWork(handoff_id=handoff_id))


def kv_query_to_proto() -> worker_pb2.AttachRequest:
    """A wish for a snapshot of the worker's block names."""
    return worker_pb2.AttachRequest(query_kv=worker_pb2.QueryKv())


def router_hello_to_proto(router_id: str) -> worker_pb2.AttachRequest:
    """The first message of a stream."""
    return worker_pb2.AttachRequest(hello=worker_pb2.RouterHello(router_id=router_id))
