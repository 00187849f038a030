"""Protobuf on the worker's side of the attach and handoff services."""

from collections.abc import Sequence

from baton.v1 import common_pb2, handoff_pb2, worker_pb2

from core.cost import CostModel
from core.errors import InvalidRequestError
from core.events import ReturnedWork, TokenTiming, WorkerLoad
from core.experts import ExpertReport
from core.ids import WorkerEndpoint, WorkerId
from core.kv_events import KvEvents, KvSnapshot, join_names
from core.logprobs import TokenLogprobs
from core.processes import RankProcess
from core.request import Assignment, FinishReason, PrefixSource, Role
from core.roles import RoleOrder, RoleRefusal, RoleState
from core.sampling import SamplingParams
from core.token_runs import TokenRun, runs_of
from core.transfers import PairReport, PairStats, TransferReport
from engine.kv.layout import KvLayout
from engine.parallel.topology import ShardTopology
from kvtransfer.move import Digest
from kvtransfer.port import Reservation
from worker.report import StepReport

FINISH_TO_PROTO = {
    None: common_pb2.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: common_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: common_pb2.FINISH_REASON_LENGTH,
}
ROLE_TO_PROTO = {
    Role.PREFILL: common_pb2.ROLE_PREFILL,
    Role.DECODE: common_pb2.ROLE_DECODE,
    Role.MIXED: common_pb2.ROLE_MIXED,
}
ROLE_FROM_PROTO = {number: role for role, number in ROLE_TO_PROTO.items()}


def worker_id_to_proto(worker: WorkerId) -> common_pb2.WorkerId:
    """A worker's id."""
    return common_pb2.WorkerId(name=worker.name, incarnation=worker.incarnation)


def worker_id_from_proto(message: common_pb2.WorkerId) -> WorkerId:
    """Inverse of `worker_id_to_proto`."""
    return WorkerId(message.name, message.incarnation)


def endpoint_to_proto(endpoint: WorkerEndpoint) -> common_pb2.WorkerEndpoint:
    """A worker's id and address."""
    return common_pb2.WorkerEndpoint(worker=worker_id_to_proto(endpoint.worker), address=endpoint.address)


def endpoint_from_proto(message: common_pb2.WorkerEndpoint) -> WorkerEndpoint:
    """Inverse of `endpoint_to_proto`."""
    return WorkerEndpoint(worker_id_from_proto(message.worker), message.address)


def process_to_proto(rank: RankProcess) -> worker_pb2.RankProcess:
    """The process of a rank."""
    return worker_pb2.RankProcess(node=rank.node, pid=rank.process.pid, started_s=rank.process.started_s)


def layout_to_proto(layout: KvLayout) -> common_pb2.KvLayout:
    """The shape of a KV block."""
    return common_pb2.KvLayout(
        num_layers=layout.num_layers,
        kv_heads=layout.kv_heads,
        block_tokens=layout.block_tokens,
        head_dim=layout.head_dim,
        dtype=layout.dtype,
    )


def layout_from_proto(message: common_pb2.KvLayout) -> KvLayout:
    """Inverse of `layout_to_proto`."""
    return KvLayout(message.num_layers, message.kv_heads, message.block_tokens, message.head_dim, message.dtype)


def topology_to_proto(topology: ShardTopology) -> common_pb2.ShardTopology:
    """How a worker is divided among ranks."""
    return common_pb2.ShardTopology(
        tensor_parallel_size=topology.tensor_parallel_size,
        expert_parallel_size=topology.expert_parallel_size,
        num_redundant_experts=topology.num_redundant_experts,
    )


def cost_to_proto(model: CostModel) -> worker_pb2.CostModel:
    """How long steps take."""
    return worker_pb2.CostModel(
        chunk_tokens=model.chunk_tokens,
        prefill=[worker_pb2.CostPoint(number=x, seconds=y) for x, y in model.prefill.points],
        prefill_pair_s=model.prefill_pair_s,
        decode=[worker_pb2.CostPoint(number=x, seconds=y) for x, y in model.decode.points],
        decode_context_token_s=model.decode_context_token_s,
    )


def role_state_to_proto(state: RoleState) -> worker_pb2.RoleState:
    """What a worker is for."""
    return worker_pb2.RoleState(
        role=ROLE_TO_PROTO[state.role],
        role_epoch=state.epoch,
        is_cordoned=state.is_cordoned,
        is_pinned=state.is_pinned,
        order_id=state.order_id,
        revision=state.revision,
        is_leaving=state.is_leaving,
    )


def drain_timeout_from_proto(message: worker_pb2.Leave) -> float | None:
    """Seconds that a worker is given to leave; None when that is its own to say."""
    return message.drain_timeout_s if message.HasField("drain_timeout_s") else None


def role_order_from_proto(message: worker_pb2.SetRole) -> RoleOrder:
    """A router's wish to change that.

    Raises:
        InvalidRequestError: no such role.
    """
    role = ROLE_FROM_PROTO.get(message.role)
    if role is None:
        raise InvalidRequestError(f"role number {message.role} is not one of {sorted(ROLE_FROM_PROTO)}")
    return RoleOrder(
        message.order_id, role, message.role_epoch, message.is_cordoned, message.is_pinned, message.revision
    )


def role_refusal_to_proto(refusal: RoleRefusal) -> worker_pb2.AttachResponse:
    """Why an order changed nothing."""
    return worker_pb2.AttachResponse(
        role_refusal=worker_pb2.RoleRefusal(
            order_id=refusal.order_id, role_epoch=refusal.epoch, message=refusal.message
        )
    )


def assignment_from_proto(message: worker_pb2.AssignWork) -> Assignment:
    """The router's order.

    Raises:
        InvalidRequestError: sampling parameters out of range.
    """
    return Assignment(
        handoff_id=message.handoff_id,
        prompt=tuple(message.prompt),
        first_position=message.first_position,
        max_new_tokens=message.max_new_tokens,
        sampling=sampling_from_proto(message.sampling),
        stop_token_ids=frozenset(message.stop_token_ids),
        prefill=endpoint_from_proto(message.prefill),
        decode=endpoint_from_proto(message.decode),
        cache_salt=message.cache_salt,
        prefix_source=_prefix_source_from_proto(message.prefix_source) if message.HasField("prefix_source") else None,
        tenant=message.tenant,
        priority=message.priority,
        tenant_answer_tokens=message.tenant_answer_tokens,
    )


def _prefix_source_from_proto(message: worker_pb2.PrefixSource) -> PrefixSource:
    return PrefixSource(endpoint_from_proto(message.source), message.num_tokens, message.expected_s)


def sampling_from_proto(message: common_pb2.SamplingParams) -> SamplingParams:
    """How tokens are chosen.

    Raises:
        InvalidRequestError: a parameter is out of range.
    """
    return SamplingParams(
        temperature=message.temperature,
        top_p=message.top_p,
        top_k=message.top_k,
        seed=message.seed,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        logit_bias=tuple(sorted(message.logit_bias.items())),
        bad_words=tuple(tuple(word.token_ids) for word in message.bad_words),
        min_tokens=message.min_tokens,
        logprobs=message.logprobs if message.HasField("logprobs") else None,
    )


def logprobs_to_proto(logprobs: TokenLogprobs) -> common_pb2.TokenLogprobs:
    """Log-probabilities at one position."""
    return common_pb2.TokenLogprobs(**{name: getattr(logprobs, name) for name in TokenLogprobs.__slots__})


def runs_to_proto(runs: Sequence[TokenRun]) -> worker_pb2.TokenRuns:
    """Generated tokens."""
    return worker_pb2.TokenRuns(
        handoff_ids=[run.handoff_id for run in runs],
        positions=[run.position for run in runs],
        lengths=[len(run.token_ids) for run in runs],
        token_ids=[token_id for run in runs for token_id in run.token_ids],
        details=[_details_to_proto(index, run) for index, run in enumerate(runs) if run.has_details],
    )


def _details_to_proto(index: int, run: TokenRun) -> worker_pb2.TokenRunDetails:
    return worker_pb2.TokenRunDetails(
        run=index,
        finish_reason=FINISH_TO_PROTO[run.finish_reason],
        logprobs=map(logprobs_to_proto, run.logprobs),
        cached_tokens=run.cached_tokens,
        timing=None if run.timing is None else _timing_to_proto(run.timing),
    )


def _timing_to_proto(timing: TokenTiming) -> worker_pb2.TokenTiming:
    return worker_pb2.TokenTiming(queue_s=timing.queue_s, compute_s=timing.compute_s)


def returned_to_proto(work: ReturnedWork) -> worker_pb2.ReturnedWork:
    """Work given back."""
    return worker_pb2.ReturnedWork(
        handoff_id=work.handoff_id, code=work.code, message=work.message, retryable=work.retryable
    )


def load_to_proto(load: WorkerLoad) -> worker_pb2.WorkerLoad:
    """A worker's load; both sides name the fields alike."""
    return worker_pb2.WorkerLoad(**{name: getattr(load, name) for name in WorkerLoad.__slots__})


def report_to_proto(report: StepReport) -> worker_pb2.AttachResponse:
    """One step's message to one router."""
    return worker_pb2.AttachResponse(
        report=worker_pb2.StepReport(
            runs=runs_to_proto(runs_of(report.tokens)),
            returned=[returned_to_proto(work) for work in report.returned],
            load=load_to_proto(report.load),
            kv_events=_kv_events_to_proto(report.kv_events) if report.kv_events else None,
            kv_snapshot=_kv_snapshot_to_proto(report.kv_snapshot) if report.kv_snapshot else None,
        )
    )


def _kv_events_to_proto(events: KvEvents) -> worker_pb2.KvEvents:
    return worker_pb2.KvEvents(
        first=events.first, stored=join_names(events.stored), dropped=join_names(events.dropped)
    )


def _kv_snapshot_to_proto(part: KvSnapshot) -> worker_pb2.KvSnapshot:
    return worker_pb2.KvSnapshot(next=part.next, names=join_names(part.names), is_last=part.is_last)


def expert_report_to_proto(report: ExpertReport) -> worker_pb2.AttachResponse:
    """The answer to a question about experts."""
    layers = [
        worker_pb2.ExpertLayer(
            layer=layer.layer,
            tokens=layer.tokens,
            imbalance_before=layer.imbalance_before,
            imbalance_after=layer.imbalance_after,
        )
        for layer in report.layers
    ]
    return worker_pb2.AttachResponse(
        expert_report=worker_pb2.ExpertReport(
            query_id=report.query_id, layers=layers, refusal=report.refusal, num_moved=report.num_moved
        )
    )


def transfers_to_proto(report: TransferReport) -> worker_pb2.AttachResponse:
    """What has moved between this worker and its peers."""
    return worker_pb2.AttachResponse(
        transfers=worker_pb2.TransferReport(
            sent=[pair_to_proto(pair) for pair in report.sent],
            received=[pair_to_proto(pair) for pair in report.received],
        )
    )


def pair_to_proto(pair: PairReport) -> worker_pb2.PairTransfers:
    """What has moved between this worker and one peer; both sides name the counts alike."""
    return worker_pb2.PairTransfers(
        peer=worker_id_to_proto(pair.peer),
        direction=pair.direction,
        **{name: getattr(pair.stats, name) for name in PairStats.__slots__},
    )


def begin_to_proto(
    handoff_id: str, source: WorkerId, target: WorkerId, num_tokens: int | None = None
) -> handoff_pb2.BeginHandoffRequest:
    """A source's wish for blocks: for so many tokens of a running sequence, or for the prompt."""
    return handoff_pb2.BeginHandoffRequest(
        handoff_id=handoff_id,
        source=worker_id_to_proto(source),
        target=worker_id_to_proto(target),
        num_tokens=num_tokens or 0,
    )


def reservation_to_proto(reserved: Reservation) -> handoff_pb2.BeginHandoffResponse:
    """A target's answer."""
    return handoff_pb2.BeginHandoffResponse(
        block_ids=reserved.block_ids, num_present=reserved.num_present, block_tokens=reserved.block_tokens
    )


def reservation_from_proto(message: handoff_pb2.BeginHandoffResponse) -> Reservation:
    """Inverse of `reservation_to_proto`."""
    return Reservation(message.num_present, tuple(message.block_ids), message.block_tokens)


def renewal_to_proto(
    source: WorkerId, target: WorkerId, handoff_ids: Sequence[str]
) -> handoff_pb2.RenewLeasesRequest:
    """A source's word that these handoffs are alive."""
    return handoff_pb2.RenewLeasesRequest(
        source=worker_id_to_proto(source), target=worker_id_to_proto(target), handoff_ids=handoff_ids
    )


def digest_to_proto(digest: Digest) -> handoff_pb2.KvDigest:
    """A checksum; both sides name the fields alike."""
    return handoff_pb2.KvDigest(**{name: getattr(digest, name) for name in Digest.__slots__})


def digest_from_proto(message: handoff_pb2.KvDigest) -> Digest:
    """Inverse of `digest_to_proto`."""
    return Digest(**{name: getattr(message, name) for name in Digest.__slots__})


def commit_to_proto(
    handoff_id: str,
    source: WorkerId,
    target: WorkerId,
    *,
    token_ids: Sequence[int],
    num_blocks: int,
    digests: Sequence[Digest] = (),
) -> handoff_pb2.CommitHandoffRequest:
    """A source's word that everything is written."""
    return handoff_pb2.CommitHandoffRequest(
        handoff_id=handoff_id,
        source=worker_id_to_proto(source),
        target=worker_id_to_proto(target),
        tokens=token_ids,
        num_blocks=num_blocks,
        digests=[digest_to_proto(digest) for digest in digests],
    )


def abort_to_proto(handoff_id: str, source: WorkerId, target: WorkerId) -> handoff_pb2.AbortHandoffRequest:
    """A source's word that nothing more will be written."""
    return handoff_pb2.AbortHandoffRequest(
        handoff_id=handoff_id, source=worker_id_to_proto(source), target=worker_id_to_proto(target)
    )
