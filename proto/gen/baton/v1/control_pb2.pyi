from baton.v1 import common_pb2 as _common_pb2
from baton.v1 import worker_pb2 as _worker_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
    __slots__ = ("model", "unready_reason", "active_requests", "workers")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UNREADY_REASON_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    model: str
    unready_reason: str
    active_requests: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    def __init__(self, model: _Optional[str] = ..., unready_reason: _Optional[str] = ..., active_requests: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("hello", "load", "silent_s", "transfers")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    hello: _worker_pb2.WorkerHello
    load: _worker_pb2.WorkerLoad
    silent_s: float
    transfers: _worker_pb2.TransferReport
    def __init__(self, hello: _Optional[_Union[_worker_pb2.WorkerHello, _Mapping]] = ..., load: _Optional[_Union[_worker_pb2.WorkerLoad, _Mapping]] = ..., silent_s: _Optional[float] = ..., transfers: _Optional[_Union[_worker_pb2.TransferReport, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("worker", "silent_s", "processes")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    worker: _common_pb2.WorkerId
    silent_s: float
    processes: _containers.RepeatedCompositeFieldContainer[_worker_pb2.RankProcess]
    def __init__(self, worker: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., silent_s: _Optional[float] = ..., processes: _Optional[_Iterable[_Union[_worker_pb2.RankProcess, _Mapping]]] = ...) -> None: ...

class ReportWorkerGoneRequest(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: _common_pb2.WorkerId
    def __init__(self, worker: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ...) -> None: ...

class ReportWorkerGoneResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
