from baton.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("hello", "assign", "cancel", "query_experts", "query_kv", "worker_gone", "set_role", "migrate", "return_queued", "leave", "further")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    QUERY_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    QUERY_KV_FIELD_NUMBER: _ClassVar[int]
    WORKER_GONE_FIELD_NUMBER: _ClassVar[int]
    SET_ROLE_FIELD_NUMBER: _ClassVar[int]
    MIGRATE_FIELD_NUMBER: _ClassVar[int]
    RETURN_QUEUED_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    FURTHER_FIELD_NUMBER: _ClassVar[int]
    hello: RouterHello
    assign: AssignWork
    cancel: CancelWork
    query_experts: QueryExperts
    query_kv: QueryKv
    worker_gone: WorkerGone
    set_role: SetRole
    migrate: MigrateWork
    return_queued: ReturnQueued
    leave: Leave
    further: _containers.RepeatedCompositeFieldContainer[AttachRequest]
    def __init__(self, hello: _Optional[_Union[RouterHello, _Mapping]] = ..., assign: _Optional[_Union[AssignWork, _Mapping]] = ..., cancel: _Optional[_Union[CancelWork, _Mapping]] = ..., query_experts: _Optional[_Union[QueryExperts, _Mapping]] = ..., query_kv: _Optional[_Union[QueryKv, _Mapping]] = ..., worker_gone: _Optional[_Union[WorkerGone, _Mapping]] = ..., set_role: _Optional[_Union[SetRole, _Mapping]] = ..., migrate: _Optional[_Union[MigrateWork, _Mapping]] = ..., return_queued: _Optional[_Union[ReturnQueued, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ..., further: _Optional[_Iterable[_Union[AttachRequest, _Mapping]]] = ...) -> None: ...

class RouterHello(_message.Message):
    __slots__ = ("router_id",)
    ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    router_id: str
    def __init__(self, router_id: _Optional[str] = ...) -> None: ...

class AssignWork(_message.Message):
    __slots__ = ("handoff_id", "prompt", "first_position", "max_new_tokens", "sampling", "stop_token_ids", "prefill", "decode", "role_epoch", "cache_salt", "prefix_source", "tenant", "priority", "tenant_answer_tokens")
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    FIRST_POSITION_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    ROLE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_SOURCE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TENANT_ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    handoff_id: str
    prompt: _containers.RepeatedScalarFieldContainer[int]
    first_position: int
    max_new_tokens: int
    sampling: _common_pb2.SamplingParams
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    prefill: _common_pb2.WorkerEndpoint
    decode: _common_pb2.WorkerEndpoint
    role_epoch: int
    cache_salt: str
    prefix_source: PrefixSource
    tenant: str
    priority: int
    tenant_answer_tokens: int
    def __init__(self, handoff_id: _Optional[str] = ..., prompt: _Optional[_Iterable[int]] = ..., first_position: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., sampling: _Optional[_Union[_common_pb2.SamplingParams, _Mapping]] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., prefill: _Optional[_Union[_common_pb2.WorkerEndpoint, _Mapping]] = ..., decode: _Optional[_Union[_common_pb2.WorkerEndpoint, _Mapping]] = ..., role_epoch: _Optional[int] = ..., cache_salt: _Optional[str] = ..., prefix_source: _Optional[_Union[PrefixSource, _Mapping]] = ..., tenant: _Optional[str] = ..., priority: _Optional[int] = ..., tenant_answer_tokens: _Optional[int] = ...) -> None: ...

class PrefixSource(_message.Message):
    __slots__ = ("source", "num_tokens", "expected_s")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_S_FIELD_NUMBER: _ClassVar[int]
    source: _common_pb2.WorkerEndpoint
    num_tokens: int
    expected_s: float
    def __init__(self, source: _Optional[_Union[_common_pb2.WorkerEndpoint, _Mapping]] = ..., num_tokens: _Optional[int] = ..., expected_s: _Optional[float] = ...) -> None: ...

class CancelWork(_message.Message):
    __slots__ = ("handoff_id",)
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    handoff_id: str
    def __init__(self, handoff_id: _Optional[str] = ...) -> None: ...

class QueryExperts(_message.Message):
    __slots__ = ("query_id", "rebalance")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    REBALANCE_FIELD_NUMBER: _ClassVar[int]
    query_id: str
    rebalance: bool
    def __init__(self, query_id: _Optional[str] = ..., rebalance: _Optional[bool] = ...) -> None: ...

class SetRole(_message.Message):
    __slots__ = ("order_id", "role", "role_epoch", "is_cordoned", "is_pinned", "revision")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ROLE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    IS_CORDONED_FIELD_NUMBER: _ClassVar[int]
    IS_PINNED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    role: _common_pb2.Role
    role_epoch: int
    is_cordoned: bool
    is_pinned: bool
    revision: int
    def __init__(self, order_id: _Optional[str] = ..., role: _Optional[_Union[_common_pb2.Role, str]] = ..., role_epoch: _Optional[int] = ..., is_cordoned: _Optional[bool] = ..., is_pinned: _Optional[bool] = ..., revision: _Optional[int] = ...) -> None: ...

class RoleState(_message.Message):
    __slots__ = ("role", "role_epoch", "is_cordoned", "is_pinned", "order_id", "revision", "is_leaving")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ROLE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    IS_CORDONED_FIELD_NUMBER: _ClassVar[int]
    IS_PINNED_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    IS_LEAVING_FIELD_NUMBER: _ClassVar[int]
    role: _common_pb2.Role
    role_epoch: int
    is_cordoned: bool
    is_pinned: bool
    order_id: str
    revision: int
    is_leaving: bool
    def __init__(self, role: _Optional[_Union[_common_pb2.Role, str]] = ..., role_epoch: _Optional[int] = ..., is_cordoned: _Optional[bool] = ..., is_pinned: _Optional[bool] = ..., order_id: _Optional[str] = ..., revision: _Optional[int] = ..., is_leaving: _Optional[bool] = ...) -> None: ...

class RoleRefusal(_message.Message):
    __slots__ = ("order_id", "role_epoch", "message")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    role_epoch: int
    message: str
    def __init__(self, order_id: _Optional[str] = ..., role_epoch: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class MigrateWork(_message.Message):
    __slots__ = ("handoff_id", "new_handoff_id", "target")
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    handoff_id: str
    new_handoff_id: str
    target: _common_pb2.WorkerEndpoint
    def __init__(self, handoff_id: _Optional[str] = ..., new_handoff_id: _Optional[str] = ..., target: _Optional[_Union[_common_pb2.WorkerEndpoint, _Mapping]] = ...) -> None: ...

class ReturnQueued(_message.Message):
    __slots__ = ("num_tokens",)
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    num_tokens: int
    def __init__(self, num_tokens: _Optional[int] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ("drain_timeout_s",)
    DRAIN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    drain_timeout_s: float
    def __init__(self, drain_timeout_s: _Optional[float] = ...) -> None: ...

class QueryKv(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WorkerGone(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: _common_pb2.WorkerId
    def __init__(self, worker: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("hello", "report", "expert_report", "transfers", "role_state", "role_refusal")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    EXPERT_REPORT_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    ROLE_STATE_FIELD_NUMBER: _ClassVar[int]
    ROLE_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    hello: WorkerHello
    report: StepReport
    expert_report: ExpertReport
    transfers: TransferReport
    role_state: RoleState
    role_refusal: RoleRefusal
    def __init__(self, hello: _Optional[_Union[WorkerHello, _Mapping]] = ..., report: _Optional[_Union[StepReport, _Mapping]] = ..., expert_report: _Optional[_Union[ExpertReport, _Mapping]] = ..., transfers: _Optional[_Union[TransferReport, _Mapping]] = ..., role_state: _Optional[_Union[RoleState, _Mapping]] = ..., role_refusal: _Optional[_Union[RoleRefusal, _Mapping]] = ...) -> None: ...

class TransferReport(_message.Message):
    __slots__ = ("sent", "received")
    SENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    sent: _containers.RepeatedCompositeFieldContainer[PairTransfers]
    received: _containers.RepeatedCompositeFieldContainer[PairTransfers]
    def __init__(self, sent: _Optional[_Iterable[_Union[PairTransfers, _Mapping]]] = ..., received: _Optional[_Iterable[_Union[PairTransfers, _Mapping]]] = ...) -> None: ...

class PairTransfers(_message.Message):
    __slots__ = ("peer", "transport", "path", "direction", "num_handoffs", "num_bytes", "num_bytes_saved", "num_descriptors", "busy_s", "exposed_s", "acknowledge_s", "num_expired_leases", "num_retried", "failures")
    class FailuresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PEER_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    NUM_HANDOFFS_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_SAVED_FIELD_NUMBER: _ClassVar[int]
    NUM_DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    EXPOSED_S_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGE_S_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPIRED_LEASES_FIELD_NUMBER: _ClassVar[int]
    NUM_RETRIED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    peer: _common_pb2.WorkerId
    transport: str
    path: str
    direction: str
    num_handoffs: int
    num_bytes: int
    num_bytes_saved: int
    num_descriptors: int
    busy_s: float
    exposed_s: float
    acknowledge_s: float
    num_expired_leases: int
    num_retried: int
    failures: _containers.ScalarMap[str, int]
    def __init__(self, peer: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., transport: _Optional[str] = ..., path: _Optional[str] = ..., direction: _Optional[str] = ..., num_handoffs: _Optional[int] = ..., num_bytes: _Optional[int] = ..., num_bytes_saved: _Optional[int] = ..., num_descriptors: _Optional[int] = ..., busy_s: _Optional[float] = ..., exposed_s: _Optional[float] = ..., acknowledge_s: _Optional[float] = ..., num_expired_leases: _Optional[int] = ..., num_retried: _Optional[int] = ..., failures: _Optional[_Mapping[str, int]] = ...) -> None: ...

class WorkerHello(_message.Message):
    __slots__ = ("endpoint", "model_fingerprint", "layout", "num_blocks", "max_num_seqs", "max_model_len", "topology", "cost_model", "block_bytes", "processes", "role_state", "versions", "unix_s")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_SEQS_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    COST_MODEL_FIELD_NUMBER: _ClassVar[int]
    BLOCK_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    ROLE_STATE_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    UNIX_S_FIELD_NUMBER: _ClassVar[int]
    endpoint: _common_pb2.WorkerEndpoint
    model_fingerprint: str
    layout: _common_pb2.KvLayout
    num_blocks: int
    max_num_seqs: int
    max_model_len: int
    topology: _common_pb2.ShardTopology
    cost_model: CostModel
    block_bytes: int
    processes: _containers.RepeatedCompositeFieldContainer[RankProcess]
    role_state: RoleState
    versions: _containers.ScalarMap[str, str]
    unix_s: float
    def __init__(self, endpoint: _Optional[_Union[_common_pb2.WorkerEndpoint, _Mapping]] = ..., model_fingerprint: _Optional[str] = ..., layout: _Optional[_Union[_common_pb2.KvLayout, _Mapping]] = ..., num_blocks: _Optional[int] = ..., max_num_seqs: _Optional[int] = ..., max_model_len: _Optional[int] = ..., topology: _Optional[_Union[_common_pb2.ShardTopology, _Mapping]] = ..., cost_model: _Optional[_Union[CostModel, _Mapping]] = ..., block_bytes: _Optional[int] = ..., processes: _Optional[_Iterable[_Union[RankProcess, _Mapping]]] = ..., role_state: _Optional[_Union[RoleState, _Mapping]] = ..., versions: _Optional[_Mapping[str, str]] = ..., unix_s: _Optional[float] = ...) -> None: ...

class RankProcess(_message.Message):
    __slots__ = ("node", "pid", "started_s")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STARTED_S_FIELD_NUMBER: _ClassVar[int]
    node: str
    pid: int
    started_s: float
    def __init__(self, node: _Optional[str] = ..., pid: _Optional[int] = ..., started_s: _Optional[float] = ...) -> None: ...

class ExpertReport(_message.Message):
    __slots__ = ("query_id", "layers", "refusal", "num_moved")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    NUM_MOVED_FIELD_NUMBER: _ClassVar[int]
    query_id: str
    layers: _containers.RepeatedCompositeFieldContainer[ExpertLayer]
    refusal: str
    num_moved: int
    def __init__(self, query_id: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[ExpertLayer, _Mapping]]] = ..., refusal: _Optional[str] = ..., num_moved: _Optional[int] = ...) -> None: ...

class ExpertLayer(_message.Message):
    __slots__ = ("layer", "tokens", "imbalance_before", "imbalance_after")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_AFTER_FIELD_NUMBER: _ClassVar[int]
    layer: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    imbalance_before: float
    imbalance_after: float
    def __init__(self, layer: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., imbalance_before: _Optional[float] = ..., imbalance_after: _Optional[float] = ...) -> None: ...

class CostModel(_message.Message):
    __slots__ = ("chunk_tokens", "prefill", "prefill_pair_s", "decode", "decode_context_token_s")
    CHUNK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    PREFILL_PAIR_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    DECODE_CONTEXT_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    chunk_tokens: int
    prefill: _containers.RepeatedCompositeFieldContainer[CostPoint]
    prefill_pair_s: float
    decode: _containers.RepeatedCompositeFieldContainer[CostPoint]
    decode_context_token_s: float
    def __init__(self, chunk_tokens: _Optional[int] = ..., prefill: _Optional[_Iterable[_Union[CostPoint, _Mapping]]] = ..., prefill_pair_s: _Optional[float] = ..., decode: _Optional[_Iterable[_Union[CostPoint, _Mapping]]] = ..., decode_context_token_s: _Optional[float] = ...) -> None: ...

class CostPoint(_message.Message):
    __slots__ = ("number", "seconds")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    number: float
    seconds: float
    def __init__(self, number: _Optional[float] = ..., seconds: _Optional[float] = ...) -> None: ...

class StepReport(_message.Message):
    __slots__ = ("runs", "returned", "load", "kv_events", "kv_snapshot")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    KV_EVENTS_FIELD_NUMBER: _ClassVar[int]
    KV_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    runs: TokenRuns
    returned: _containers.RepeatedCompositeFieldContainer[ReturnedWork]
    load: WorkerLoad
    kv_events: KvEvents
    kv_snapshot: KvSnapshot
    def __init__(self, runs: _Optional[_Union[TokenRuns, _Mapping]] = ..., returned: _Optional[_Iterable[_Union[ReturnedWork, _Mapping]]] = ..., load: _Optional[_Union[WorkerLoad, _Mapping]] = ..., kv_events: _Optional[_Union[KvEvents, _Mapping]] = ..., kv_snapshot: _Optional[_Union[KvSnapshot, _Mapping]] = ...) -> None: ...

class KvEvents(_message.Message):
    __slots__ = ("first", "stored", "dropped")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    first: int
    stored: bytes
    dropped: bytes
    def __init__(self, first: _Optional[int] = ..., stored: _Optional[bytes] = ..., dropped: _Optional[bytes] = ...) -> None: ...

class KvSnapshot(_message.Message):
    __slots__ = ("next", "names", "is_last")
    NEXT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    next: int
    names: bytes
    is_last: bool
    def __init__(self, next: _Optional[int] = ..., names: _Optional[bytes] = ..., is_last: _Optional[bool] = ...) -> None: ...

class TokenRuns(_message.Message):
    __slots__ = ("handoff_ids", "positions", "lengths", "token_ids", "details")
    HANDOFF_IDS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    handoff_ids: _containers.RepeatedScalarFieldContainer[str]
    positions: _containers.RepeatedScalarFieldContainer[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    details: _containers.RepeatedCompositeFieldContainer[TokenRunDetails]
    def __init__(self, handoff_ids: _Optional[_Iterable[str]] = ..., positions: _Optional[_Iterable[int]] = ..., lengths: _Optional[_Iterable[int]] = ..., token_ids: _Optional[_Iterable[int]] = ..., details: _Optional[_Iterable[_Union[TokenRunDetails, _Mapping]]] = ...) -> None: ...

class TokenRunDetails(_message.Message):
    __slots__ = ("run", "finish_reason", "logprobs", "cached_tokens", "timing")
    RUN_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    run: int
    finish_reason: _common_pb2.FinishReason
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprobs]
    cached_tokens: int
    timing: TokenTiming
    def __init__(self, run: _Optional[int] = ..., finish_reason: _Optional[_Union[_common_pb2.FinishReason, str]] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprobs, _Mapping]]] = ..., cached_tokens: _Optional[int] = ..., timing: _Optional[_Union[TokenTiming, _Mapping]] = ...) -> None: ...

class TokenTiming(_message.Message):
    __slots__ = ("queue_s", "compute_s")
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    queue_s: float
    compute_s: float
    def __init__(self, queue_s: _Optional[float] = ..., compute_s: _Optional[float] = ...) -> None: ...

class ReturnedWork(_message.Message):
    __slots__ = ("handoff_id", "code", "message", "retryable")
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    handoff_id: str
    code: str
    message: str
    retryable: bool
    def __init__(self, handoff_id: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., retryable: _Optional[bool] = ...) -> None: ...

class WorkerLoad(_message.Message):
    __slots__ = ("queued_prompts", "pending_prompt_tokens", "running_sequences", "incoming_handoffs", "blocks_total", "blocks_free", "blocks_running", "blocks_leased", "blocks_quarantined", "prompt_tokens_computed", "decode_tokens_computed", "steps", "handoffs_sent", "handoff_bytes", "handoff_write_s", "handoff_exposed_s", "handoffs_received", "running_context_tokens", "prefill_cost_change", "prefill_attention_cost_change", "decode_cost_change", "decode_attention_cost_change", "prefill_cost_error", "decode_cost_error", "blocks_cached", "prefix_query_tokens", "prefix_hit_tokens", "blocks_evicted", "handoff_bytes_saved", "host_blocks", "host_blocks_restored", "host_blocks_dropped", "blocks_free_together", "prefix_fetches", "prefix_fetches_failed", "prefix_tokens_fetched", "prefix_bytes_fetched", "prefix_fetch_s", "role_epoch", "epoch_steps", "epoch_prompt_tokens", "epoch_decode_tokens", "epoch_first_work_s", "migrations_sent", "migrations_received", "migrations_failed", "migration_pause_s", "migration_longest_pause_s", "migrations_open")
    QUEUED_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    PENDING_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    INCOMING_HANDOFFS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FREE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_LEASED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_COMPUTED_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_COMPUTED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    HANDOFFS_SENT_FIELD_NUMBER: _ClassVar[int]
    HANDOFF_BYTES_FIELD_NUMBER: _ClassVar[int]
    HANDOFF_WRITE_S_FIELD_NUMBER: _ClassVar[int]
    HANDOFF_EXPOSED_S_FIELD_NUMBER: _ClassVar[int]
    HANDOFFS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_COST_CHANGE_FIELD_NUMBER: _ClassVar[int]
    PREFILL_ATTENTION_COST_CHANGE_FIELD_NUMBER: _ClassVar[int]
    DECODE_COST_CHANGE_FIELD_NUMBER: _ClassVar[int]
    DECODE_ATTENTION_COST_CHANGE_FIELD_NUMBER: _ClassVar[int]
    PREFILL_COST_ERROR_FIELD_NUMBER: _ClassVar[int]
    DECODE_COST_ERROR_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_CACHED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_QUERY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HIT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_EVICTED_FIELD_NUMBER: _ClassVar[int]
    HANDOFF_BYTES_SAVED_FIELD_NUMBER: _ClassVar[int]
    HOST_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    HOST_BLOCKS_RESTORED_FIELD_NUMBER: _ClassVar[int]
    HOST_BLOCKS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FREE_TOGETHER_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FETCHES_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FETCHES_FAILED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_TOKENS_FETCHED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_BYTES_FETCHED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FETCH_S_FIELD_NUMBER: _ClassVar[int]
    ROLE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCH_STEPS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_DECODE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIRST_WORK_S_FIELD_NUMBER: _ClassVar[int]
    MIGRATIONS_SENT_FIELD_NUMBER: _ClassVar[int]
    MIGRATIONS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    MIGRATIONS_FAILED_FIELD_NUMBER: _ClassVar[int]
    MIGRATION_PAUSE_S_FIELD_NUMBER: _ClassVar[int]
    MIGRATION_LONGEST_PAUSE_S_FIELD_NUMBER: _ClassVar[int]
    MIGRATIONS_OPEN_FIELD_NUMBER: _ClassVar[int]
    queued_prompts: int
    pending_prompt_tokens: int
    running_sequences: int
    incoming_handoffs: int
    blocks_total: int
    blocks_free: int
    blocks_running: int
    blocks_leased: int
    blocks_quarantined: int
    prompt_tokens_computed: int
    decode_tokens_computed: int
    steps: int
    handoffs_sent: int
    handoff_bytes: int
    handoff_write_s: float
    handoff_exposed_s: float
    handoffs_received: int
    running_context_tokens: int
    prefill_cost_change: float
    prefill_attention_cost_change: float
    decode_cost_change: float
    decode_attention_cost_change: float
    prefill_cost_error: float
    decode_cost_error: float
    blocks_cached: int
    prefix_query_tokens: int
    prefix_hit_tokens: int
    blocks_evicted: int
    handoff_bytes_saved: int
    host_blocks: int
    host_blocks_restored: int
    host_blocks_dropped: int
    blocks_free_together: int
    prefix_fetches: int
    prefix_fetches_failed: int
    prefix_tokens_fetched: int
    prefix_bytes_fetched: int
    prefix_fetch_s: float
    role_epoch: int
    epoch_steps: int
    epoch_prompt_tokens: int
    epoch_decode_tokens: int
    epoch_first_work_s: float
    migrations_sent: int
    migrations_received: int
    migrations_failed: int
    migration_pause_s: float
    migration_longest_pause_s: float
    migrations_open: int
    def __init__(self, queued_prompts: _Optional[int] = ..., pending_prompt_tokens: _Optional[int] = ..., running_sequences: _Optional[int] = ..., incoming_handoffs: _Optional[int] = ..., blocks_total: _Optional[int] = ..., blocks_free: _Optional[int] = ..., blocks_running: _Optional[int] = ..., blocks_leased: _Optional[int] = ..., blocks_quarantined: _Optional[int] = ..., prompt_tokens_computed: _Optional[int] = ..., decode_tokens_computed: _Optional[int] = ..., steps: _Optional[int] = ..., handoffs_sent: _Optional[int] = ..., handoff_bytes: _Optional[int] = ..., handoff_write_s: _Optional[float] = ..., handoff_exposed_s: _Optional[float] = ..., handoffs_received: _Optional[int] = ..., running_context_tokens: _Optional[int] = ..., prefill_cost_change: _Optional[float] = ..., prefill_attention_cost_change: _Optional[float] = ..., decode_cost_change: _Optional[float] = ..., decode_attention_cost_change: _Optional[float] = ..., prefill_cost_error: _Optional[float] = ..., decode_cost_error: _Optional[float] = ..., blocks_cached: _Optional[int] = ..., prefix_query_tokens: _Optional[int] = ..., prefix_hit_tokens: _Optional[int] = ..., blocks_evicted: _Optional[int] = ..., handoff_bytes_saved: _Optional[int] = ..., host_blocks: _Optional[int] = ..., host_blocks_restored: _Optional[int] = ..., host_blocks_dropped: _Optional[int] = ..., blocks_free_together: _Optional[int] = ..., prefix_fetches: _Optional[int] = ..., prefix_fetches_failed: _Optional[int] = ..., prefix_tokens_fetched: _Optional[int] = ..., prefix_bytes_fetched: _Optional[int] = ..., prefix_fetch_s: _Optional[float] = ..., role_epoch: _Optional[int] = ..., epoch_steps: _Optional[int] = ..., epoch_prompt_tokens: _Optional[int] = ..., epoch_decode_tokens: _Optional[int] = ..., epoch_first_work_s: _Optional[float] = ..., migrations_sent: _Optional[int] = ..., migrations_received: _Optional[int] = ..., migrations_failed: _Optional[int] = ..., migration_pause_s: _Optional[float] = ..., migration_longest_pause_s: _Optional[float] = ..., migrations_open: _Optional[int] = ...) -> None: ...
