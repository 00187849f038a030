from baton.v1 import common_pb2 as _common_pb2
from baton.v1 import worker_pb2 as _worker_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_KIND_UNSPECIFIED: _ClassVar[MemberKind]
    MEMBER_KIND_ROUTER: _ClassVar[MemberKind]
    MEMBER_KIND_WORKER: _ClassVar[MemberKind]

class MemberState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_STATE_UNSPECIFIED: _ClassVar[MemberState]
    MEMBER_STATE_STARTING: _ClassVar[MemberState]
    MEMBER_STATE_RUNNING: _ClassVar[MemberState]
    MEMBER_STATE_ENDING: _ClassVar[MemberState]
    MEMBER_STATE_WAITING: _ClassVar[MemberState]
    MEMBER_STATE_GIVEN_UP: _ClassVar[MemberState]

class RoleStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_STAGE_UNSPECIFIED: _ClassVar[RoleStage]
    ROLE_STAGE_ORDERED: _ClassVar[RoleStage]
    ROLE_STAGE_CHANGED: _ClassVar[RoleStage]
    ROLE_STAGE_VERIFIED: _ClassVar[RoleStage]
    ROLE_STAGE_FAILED: _ClassVar[RoleStage]
MEMBER_KIND_UNSPECIFIED: MemberKind
MEMBER_KIND_ROUTER: MemberKind
MEMBER_KIND_WORKER: MemberKind
MEMBER_STATE_UNSPECIFIED: MemberState
MEMBER_STATE_STARTING: MemberState
MEMBER_STATE_RUNNING: MemberState
MEMBER_STATE_ENDING: MemberState
MEMBER_STATE_WAITING: MemberState
MEMBER_STATE_GIVEN_UP: MemberState
ROLE_STAGE_UNSPECIFIED: RoleStage
ROLE_STAGE_ORDERED: RoleStage
ROLE_STAGE_CHANGED: RoleStage
ROLE_STAGE_VERIFIED: RoleStage
ROLE_STAGE_FAILED: RoleStage

class RegisterWorkerRequest(_message.Message):
    __slots__ = ("endpoint",)
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    endpoint: _common_pb2.WorkerEndpoint
    def __init__(self, endpoint: _Optional[_Union[_common_pb2.WorkerEndpoint, _Mapping]] = ...) -> None: ...

class RegisterWorkerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("model", "unready_reason", "active_requests", "workers", "members", "router_id", "versions", "unix_s")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UNREADY_REASON_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    UNIX_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    unready_reason: str
    active_requests: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    members: _containers.RepeatedCompositeFieldContainer[MemberStatus]
    router_id: str
    versions: _containers.ScalarMap[str, str]
    unix_s: float
    def __init__(self, model: _Optional[str] = ..., unready_reason: _Optional[str] = ..., active_requests: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., members: _Optional[_Iterable[_Union[MemberStatus, _Mapping]]] = ..., router_id: _Optional[str] = ..., versions: _Optional[_Mapping[str, str]] = ..., unix_s: _Optional[float] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("hello", "load", "silent_s", "transfers", "clock_skew_s")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_SKEW_S_FIELD_NUMBER: _ClassVar[int]
    hello: _worker_pb2.WorkerHello
    load: _worker_pb2.WorkerLoad
    silent_s: float
    transfers: _worker_pb2.TransferReport
    clock_skew_s: float
    def __init__(self, hello: _Optional[_Union[_worker_pb2.WorkerHello, _Mapping]] = ..., load: _Optional[_Union[_worker_pb2.WorkerLoad, _Mapping]] = ..., silent_s: _Optional[float] = ..., transfers: _Optional[_Union[_worker_pb2.TransferReport, _Mapping]] = ..., clock_skew_s: _Optional[float] = ...) -> None: ...

class ProbePairRequest(_message.Message):
    __slots__ = ("prefill", "decode", "num_tokens")
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prefill: str
    decode: str
    num_tokens: int
    def __init__(self, prefill: _Optional[str] = ..., decode: _Optional[str] = ..., num_tokens: _Optional[int] = ...) -> None: ...

class ProbePairResponse(_message.Message):
    __slots__ = ("num_tokens", "ttft_s", "second_token_s", "num_bytes", "busy_s", "transport", "path", "direction")
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TTFT_S_FIELD_NUMBER: _ClassVar[int]
    SECOND_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    num_tokens: int
    ttft_s: float
    second_token_s: float
    num_bytes: int
    busy_s: float
    transport: str
    path: str
    direction: str
    def __init__(self, num_tokens: _Optional[int] = ..., ttft_s: _Optional[float] = ..., second_token_s: _Optional[float] = ..., num_bytes: _Optional[int] = ..., busy_s: _Optional[float] = ..., transport: _Optional[str] = ..., path: _Optional[str] = ..., direction: _Optional[str] = ...) -> None: ...

class GetExpertsRequest(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: str
    def __init__(self, worker: _Optional[str] = ...) -> None: ...

class GetExpertsResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerExperts]
    def __init__(self, workers: _Optional[_Iterable[_Union[WorkerExperts, _Mapping]]] = ...) -> None: ...

class WorkerExperts(_message.Message):
    __slots__ = ("worker", "report")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    worker: str
    report: _worker_pb2.ExpertReport
    def __init__(self, worker: _Optional[str] = ..., report: _Optional[_Union[_worker_pb2.ExpertReport, _Mapping]] = ...) -> None: ...

class RebalanceExpertsRequest(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: str
    def __init__(self, worker: _Optional[str] = ...) -> None: ...

class RebalanceExpertsResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: _worker_pb2.ExpertReport
    def __init__(self, report: _Optional[_Union[_worker_pb2.ExpertReport, _Mapping]] = ...) -> None: ...

class ListSilentWorkersRequest(_message.Message):
    __slots__ = ("silent_s",)
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    silent_s: float
    def __init__(self, silent_s: _Optional[float] = ...) -> None: ...

class ListSilentWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[SilentWorker]
    def __init__(self, workers: _Optional[_Iterable[_Union[SilentWorker, _Mapping]]] = ...) -> None: ...

class SilentWorker(_message.Message):
    __slots__ = ("worker", "silent_s", "processes", "is_refused")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    IS_REFUSED_FIELD_NUMBER: _ClassVar[int]
    worker: _common_pb2.WorkerId
    silent_s: float
    processes: _containers.RepeatedCompositeFieldContainer[_worker_pb2.RankProcess]
    is_refused: bool
    def __init__(self, worker: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., silent_s: _Optional[float] = ..., processes: _Optional[_Iterable[_Union[_worker_pb2.RankProcess, _Mapping]]] = ..., is_refused: _Optional[bool] = ...) -> None: ...

class ReportWorkerGoneRequest(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: _common_pb2.WorkerId
    def __init__(self, worker: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ...) -> None: ...

class ReportWorkerGoneResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportMembersRequest(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[MemberStatus]
    def __init__(self, members: _Optional[_Iterable[_Union[MemberStatus, _Mapping]]] = ...) -> None: ...

class ReportMembersResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MemberStatus(_message.Message):
    __slots__ = ("name", "kind", "state", "address", "processes", "num_restarts", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    NUM_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: MemberKind
    state: MemberState
    address: str
    processes: _containers.RepeatedCompositeFieldContainer[_worker_pb2.RankProcess]
    num_restarts: int
    reason: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[MemberKind, str]] = ..., state: _Optional[_Union[MemberState, str]] = ..., address: _Optional[str] = ..., processes: _Optional[_Iterable[_Union[_worker_pb2.RankProcess, _Mapping]]] = ..., num_restarts: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class LeaveRouterRequest(_message.Message):
    __slots__ = ("drain_timeout_s",)
    DRAIN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    drain_timeout_s: float
    def __init__(self, drain_timeout_s: _Optional[float] = ...) -> None: ...

class LeaveRouterResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRolesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRolesResponse(_message.Message):
    __slots__ = ("workers", "is_auto", "is_leader", "ttft_limit_s", "tpot_limit_s", "alarms")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    IS_AUTO_FIELD_NUMBER: _ClassVar[int]
    IS_LEADER_FIELD_NUMBER: _ClassVar[int]
    TTFT_LIMIT_S_FIELD_NUMBER: _ClassVar[int]
    TPOT_LIMIT_S_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerRole]
    is_auto: bool
    is_leader: bool
    ttft_limit_s: float
    tpot_limit_s: float
    alarms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, workers: _Optional[_Iterable[_Union[WorkerRole, _Mapping]]] = ..., is_auto: _Optional[bool] = ..., is_leader: _Optional[bool] = ..., ttft_limit_s: _Optional[float] = ..., tpot_limit_s: _Optional[float] = ..., alarms: _Optional[_Iterable[str]] = ...) -> None: ...

class WorkerRole(_message.Message):
    __slots__ = ("worker", "state", "since_s", "last_change", "queued_prompts", "running_sequences", "num_leaving")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_S_FIELD_NUMBER: _ClassVar[int]
    LAST_CHANGE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    NUM_LEAVING_FIELD_NUMBER: _ClassVar[int]
    worker: _common_pb2.WorkerId
    state: _worker_pb2.RoleState
    since_s: float
    last_change: RoleChange
    queued_prompts: int
    running_sequences: int
    num_leaving: int
    def __init__(self, worker: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., state: _Optional[_Union[_worker_pb2.RoleState, _Mapping]] = ..., since_s: _Optional[float] = ..., last_change: _Optional[_Union[RoleChange, _Mapping]] = ..., queued_prompts: _Optional[int] = ..., running_sequences: _Optional[int] = ..., num_leaving: _Optional[int] = ...) -> None: ...

class RoleChange(_message.Message):
    __slots__ = ("order_id", "worker", "to", "stage", "actor", "reason", "message", "ordered_at", "changed_s", "first_work_s", "verified_s", "num_migrated", "num_returned", "num_finished")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ORDERED_AT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_S_FIELD_NUMBER: _ClassVar[int]
    FIRST_WORK_S_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_S_FIELD_NUMBER: _ClassVar[int]
    NUM_MIGRATED_FIELD_NUMBER: _ClassVar[int]
    NUM_RETURNED_FIELD_NUMBER: _ClassVar[int]
    NUM_FINISHED_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    worker: str
    to: _common_pb2.Role
    stage: RoleStage
    actor: str
    reason: str
    message: str
    ordered_at: float
    changed_s: float
    first_work_s: float
    verified_s: float
    num_migrated: int
    num_returned: int
    num_finished: int
    def __init__(self, order_id: _Optional[str] = ..., worker: _Optional[str] = ..., to: _Optional[_Union[_common_pb2.Role, str]] = ..., stage: _Optional[_Union[RoleStage, str]] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., ordered_at: _Optional[float] = ..., changed_s: _Optional[float] = ..., first_work_s: _Optional[float] = ..., verified_s: _Optional[float] = ..., num_migrated: _Optional[int] = ..., num_returned: _Optional[int] = ..., num_finished: _Optional[int] = ..., **kwargs) -> None: ...

class SetRoleRequest(_message.Message):
    __slots__ = ("worker", "role", "actor", "role_epoch", "incarnation")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ROLE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    worker: str
    role: _common_pb2.Role
    actor: str
    role_epoch: int
    incarnation: int
    def __init__(self, worker: _Optional[str] = ..., role: _Optional[_Union[_common_pb2.Role, str]] = ..., actor: _Optional[str] = ..., role_epoch: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...

class SetRoleResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: RoleProgress
    def __init__(self, progress: _Optional[_Union[RoleProgress, _Mapping]] = ...) -> None: ...

class RebalanceRolesRequest(_message.Message):
    __slots__ = ("num_prefill", "num_decode", "actor", "dry_run")
    NUM_PREFILL_FIELD_NUMBER: _ClassVar[int]
    NUM_DECODE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    num_prefill: int
    num_decode: int
    actor: str
    dry_run: bool
    def __init__(self, num_prefill: _Optional[int] = ..., num_decode: _Optional[int] = ..., actor: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class RebalanceRolesResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: RoleProgress
    def __init__(self, progress: _Optional[_Union[RoleProgress, _Mapping]] = ...) -> None: ...

class DrainWorkerRequest(_message.Message):
    __slots__ = ("worker", "actor")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    worker: str
    actor: str
    def __init__(self, worker: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class DrainWorkerResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: RoleProgress
    def __init__(self, progress: _Optional[_Union[RoleProgress, _Mapping]] = ...) -> None: ...

class UncordonWorkerRequest(_message.Message):
    __slots__ = ("worker", "actor")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    worker: str
    actor: str
    def __init__(self, worker: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class UncordonWorkerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RestartWorkersRequest(_message.Message):
    __slots__ = ("workers", "actor", "drain_timeout_s", "max_unavailable", "is_forced")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    DRAIN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    MAX_UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    IS_FORCED_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedScalarFieldContainer[str]
    actor: str
    drain_timeout_s: float
    max_unavailable: int
    is_forced: bool
    def __init__(self, workers: _Optional[_Iterable[str]] = ..., actor: _Optional[str] = ..., drain_timeout_s: _Optional[float] = ..., max_unavailable: _Optional[int] = ..., is_forced: _Optional[bool] = ...) -> None: ...

class RestartWorkersResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: RoleProgress
    def __init__(self, progress: _Optional[_Union[RoleProgress, _Mapping]] = ...) -> None: ...

class RestartRoutersRequest(_message.Message):
    __slots__ = ("actor", "drain_timeout_s")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    DRAIN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    actor: str
    drain_timeout_s: float
    def __init__(self, actor: _Optional[str] = ..., drain_timeout_s: _Optional[float] = ...) -> None: ...

class RestartRoutersResponse(_message.Message):
    __slots__ = ("progress", "router_id")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    progress: RoleProgress
    router_id: str
    def __init__(self, progress: _Optional[_Union[RoleProgress, _Mapping]] = ..., router_id: _Optional[str] = ...) -> None: ...

class RoleProgress(_message.Message):
    __slots__ = ("worker", "stage", "message", "num_leaving", "elapsed_s", "is_last", "change")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NUM_LEAVING_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    stage: RoleStage
    message: str
    num_leaving: int
    elapsed_s: float
    is_last: bool
    change: RoleChange
    def __init__(self, worker: _Optional[str] = ..., stage: _Optional[_Union[RoleStage, str]] = ..., message: _Optional[str] = ..., num_leaving: _Optional[int] = ..., elapsed_s: _Optional[float] = ..., is_last: _Optional[bool] = ..., change: _Optional[_Union[RoleChange, _Mapping]] = ...) -> None: ...

class SetAutoRolesRequest(_message.Message):
    __slots__ = ("is_auto", "actor")
    IS_AUTO_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    is_auto: bool
    actor: str
    def __init__(self, is_auto: _Optional[bool] = ..., actor: _Optional[str] = ...) -> None: ...

class SetAutoRolesResponse(_message.Message):
    __slots__ = ("pinned",)
    PINNED_FIELD_NUMBER: _ClassVar[int]
    pinned: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pinned: _Optional[_Iterable[str]] = ...) -> None: ...

class ListRoleDecisionsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListRoleDecisionsResponse(_message.Message):
    __slots__ = ("decisions",)
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[RoleDecision]
    def __init__(self, decisions: _Optional[_Iterable[_Union[RoleDecision, _Mapping]]] = ...) -> None: ...

class RoleDecision(_message.Message):
    __slots__ = ("at", "reason", "num_prefill", "num_decode", "wanted_prefill", "wanted_decode", "flips", "numbers", "options")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NUM_PREFILL_FIELD_NUMBER: _ClassVar[int]
    NUM_DECODE_FIELD_NUMBER: _ClassVar[int]
    WANTED_PREFILL_FIELD_NUMBER: _ClassVar[int]
    WANTED_DECODE_FIELD_NUMBER: _ClassVar[int]
    FLIPS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    at: float
    reason: str
    num_prefill: int
    num_decode: int
    wanted_prefill: int
    wanted_decode: int
    flips: _containers.RepeatedCompositeFieldContainer[RoleFlip]
    numbers: _containers.ScalarMap[str, float]
    options: _containers.RepeatedCompositeFieldContainer[SplitScore]
    def __init__(self, at: _Optional[float] = ..., reason: _Optional[str] = ..., num_prefill: _Optional[int] = ..., num_decode: _Optional[int] = ..., wanted_prefill: _Optional[int] = ..., wanted_decode: _Optional[int] = ..., flips: _Optional[_Iterable[_Union[RoleFlip, _Mapping]]] = ..., numbers: _Optional[_Mapping[str, float]] = ..., options: _Optional[_Iterable[_Union[SplitScore, _Mapping]]] = ...) -> None: ...

class RoleFlip(_message.Message):
    __slots__ = ("worker", "role")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    role: _common_pb2.Role
    def __init__(self, worker: _Optional[str] = ..., role: _Optional[_Union[_common_pb2.Role, str]] = ...) -> None: ...

class SplitScore(_message.Message):
    __slots__ = ("num_prefill", "num_decode", "goodput", "ttft_s", "tpot_s", "num_mixed")
    NUM_PREFILL_FIELD_NUMBER: _ClassVar[int]
    NUM_DECODE_FIELD_NUMBER: _ClassVar[int]
    GOODPUT_FIELD_NUMBER: _ClassVar[int]
    TTFT_S_FIELD_NUMBER: _ClassVar[int]
    TPOT_S_FIELD_NUMBER: _ClassVar[int]
    NUM_MIXED_FIELD_NUMBER: _ClassVar[int]
    num_prefill: int
    num_decode: int
    goodput: float
    ttft_s: float
    tpot_s: float
    num_mixed: int
    def __init__(self, num_prefill: _Optional[int] = ..., num_decode: _Optional[int] = ..., goodput: _Optional[float] = ..., ttft_s: _Optional[float] = ..., tpot_s: _Optional[float] = ..., num_mixed: _Optional[int] = ...) -> None: ...

class ListRoleChangesRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListRoleChangesResponse(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[RoleChange]
    def __init__(self, changes: _Optional[_Iterable[_Union[RoleChange, _Mapping]]] = ...) -> None: ...

class ListOperatorActionsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListOperatorActionsResponse(_message.Message):
    __slots__ = ("actions",)
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    actions: _containers.RepeatedCompositeFieldContainer[OperatorAction]
    def __init__(self, actions: _Optional[_Iterable[_Union[OperatorAction, _Mapping]]] = ...) -> None: ...

class OperatorAction(_message.Message):
    __slots__ = ("at", "actor", "action", "outcome")
    AT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    at: float
    actor: str
    action: str
    outcome: str
    def __init__(self, at: _Optional[float] = ..., actor: _Optional[str] = ..., action: _Optional[str] = ..., outcome: _Optional[str] = ...) -> None: ...
