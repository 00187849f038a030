from baton.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConnectPeerRequest(_message.Message):
    __slots__ = ("source", "target", "model_fingerprint", "geometry", "offers")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    GEOMETRY_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerId
    model_fingerprint: str
    geometry: KvGeometry
    offers: _containers.RepeatedCompositeFieldContainer[TransportOffer]
    def __init__(self, source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., model_fingerprint: _Optional[str] = ..., geometry: _Optional[_Union[KvGeometry, _Mapping]] = ..., offers: _Optional[_Iterable[_Union[TransportOffer, _Mapping]]] = ...) -> None: ...

class KvGeometry(_message.Message):
    __slots__ = ("layout", "total_kv_heads", "tensor_parallel_size", "num_partitions", "num_blocks")
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_KV_HEADS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_PARALLEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    layout: _common_pb2.KvLayout
    total_kv_heads: int
    tensor_parallel_size: int
    num_partitions: int
    num_blocks: int
    def __init__(self, layout: _Optional[_Union[_common_pb2.KvLayout, _Mapping]] = ..., total_kv_heads: _Optional[int] = ..., tensor_parallel_size: _Optional[int] = ..., num_partitions: _Optional[int] = ..., num_blocks: _Optional[int] = ...) -> None: ...

class TransportOffer(_message.Message):
    __slots__ = ("transport", "metadata")
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    transport: str
    metadata: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, transport: _Optional[str] = ..., metadata: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ConnectPeerResponse(_message.Message):
    __slots__ = ("chosen", "geometry")
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    GEOMETRY_FIELD_NUMBER: _ClassVar[int]
    chosen: TransportOffer
    geometry: KvGeometry
    def __init__(self, chosen: _Optional[_Union[TransportOffer, _Mapping]] = ..., geometry: _Optional[_Union[KvGeometry, _Mapping]] = ...) -> None: ...

class ReadBlocksRequest(_message.Message):
    __slots__ = ("read_id", "handoff_id", "source", "target", "source_ids", "target_ids", "skip_tokens")
    READ_ID_FIELD_NUMBER: _ClassVar[int]
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IDS_FIELD_NUMBER: _ClassVar[int]
    TARGET_IDS_FIELD_NUMBER: _ClassVar[int]
    SKIP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    read_id: str
    handoff_id: str
    source: _common_pb2.WorkerEndpoint
    target: _common_pb2.WorkerId
    source_ids: _containers.RepeatedScalarFieldContainer[int]
    target_ids: _containers.RepeatedScalarFieldContainer[int]
    skip_tokens: int
    def __init__(self, read_id: _Optional[str] = ..., handoff_id: _Optional[str] = ..., source: _Optional[_Union[_common_pb2.WorkerEndpoint, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., source_ids: _Optional[_Iterable[int]] = ..., target_ids: _Optional[_Iterable[int]] = ..., skip_tokens: _Optional[int] = ...) -> None: ...

class ReadBlocksResponse(_message.Message):
    __slots__ = ("error_code", "error", "num_bytes", "num_descriptors", "busy_s", "transport", "path", "was_retried")
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    WAS_RETRIED_FIELD_NUMBER: _ClassVar[int]
    error_code: str
    error: str
    num_bytes: int
    num_descriptors: int
    busy_s: float
    transport: str
    path: str
    was_retried: bool
    def __init__(self, error_code: _Optional[str] = ..., error: _Optional[str] = ..., num_bytes: _Optional[int] = ..., num_descriptors: _Optional[int] = ..., busy_s: _Optional[float] = ..., transport: _Optional[str] = ..., path: _Optional[str] = ..., was_retried: _Optional[bool] = ...) -> None: ...

class BeginHandoffRequest(_message.Message):
    __slots__ = ("handoff_id", "source", "target", "num_tokens")
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    handoff_id: str
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerId
    num_tokens: int
    def __init__(self, handoff_id: _Optional[str] = ..., source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., num_tokens: _Optional[int] = ...) -> None: ...

class BeginHandoffResponse(_message.Message):
    __slots__ = ("block_ids", "num_present", "block_tokens")
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    NUM_PRESENT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    num_present: int
    block_tokens: int
    def __init__(self, block_ids: _Optional[_Iterable[int]] = ..., num_present: _Optional[int] = ..., block_tokens: _Optional[int] = ...) -> None: ...

class RenewLeasesRequest(_message.Message):
    __slots__ = ("source", "target", "handoff_ids")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    HANDOFF_IDS_FIELD_NUMBER: _ClassVar[int]
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerId
    handoff_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., handoff_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RenewLeasesResponse(_message.Message):
    __slots__ = ("lost_handoff_ids",)
    LOST_HANDOFF_IDS_FIELD_NUMBER: _ClassVar[int]
    lost_handoff_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lost_handoff_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class CommitHandoffRequest(_message.Message):
    __slots__ = ("handoff_id", "source", "target", "num_blocks", "digests", "tokens")
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    handoff_id: str
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerId
    num_blocks: int
    digests: _containers.RepeatedCompositeFieldContainer[KvDigest]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, handoff_id: _Optional[str] = ..., source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., num_blocks: _Optional[int] = ..., digests: _Optional[_Iterable[_Union[KvDigest, _Mapping]]] = ..., tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class KvDigest(_message.Message):
    __slots__ = ("rank", "block_id", "first_head", "num_heads", "value")
    RANK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_HEAD_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    rank: int
    block_id: int
    first_head: int
    num_heads: int
    value: int
    def __init__(self, rank: _Optional[int] = ..., block_id: _Optional[int] = ..., first_head: _Optional[int] = ..., num_heads: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...

class CommitHandoffResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AbortHandoffRequest(_message.Message):
    __slots__ = ("handoff_id", "source", "target")
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    handoff_id: str
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerId
    def __init__(self, handoff_id: _Optional[str] = ..., source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ...) -> None: ...

class AbortHandoffResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
