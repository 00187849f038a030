from baton.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConnectPeerRequest(_message.Message):
    __slots__ = ("source", "target", "model_fingerprint", "layout", "topology")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerId
    model_fingerprint: str
    layout: _common_pb2.KvLayout
    topology: _common_pb2.ShardTopology
    def __init__(self, source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., model_fingerprint: _Optional[str] = ..., layout: _Optional[_Union[_common_pb2.KvLayout, _Mapping]] = ..., topology: _Optional[_Union[_common_pb2.ShardTopology, _Mapping]] = ...) -> None: ...

class ConnectPeerResponse(_message.Message):
    __slots__ = ("transport_metadata", "num_blocks")
    TRANSPORT_METADATA_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    transport_metadata: _containers.RepeatedScalarFieldContainer[bytes]
    num_blocks: int
    def __init__(self, transport_metadata: _Optional[_Iterable[bytes]] = ..., num_blocks: _Optional[int] = ...) -> None: ...

class BeginHandoffRequest(_message.Message):
    __slots__ = ("handoff_id", "source", "target")
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    handoff_id: str
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerId
    def __init__(self, handoff_id: _Optional[str] = ..., source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("handoff_id", "source", "target", "first_token", "num_blocks", "digests")
    HANDOFF_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    handoff_id: str
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerId
    first_token: int
    num_blocks: int
    digests: _containers.RepeatedCompositeFieldContainer[KvDigest]
    def __init__(self, handoff_id: _Optional[str] = ..., source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., first_token: _Optional[int] = ..., num_blocks: _Optional[int] = ..., digests: _Optional[_Iterable[_Union[KvDigest, _Mapping]]] = ...) -> None: ...

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
