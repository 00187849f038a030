from baton.v1 import common_pb2 as _common_pb2
from baton.v1 import handoff_pb2 as _handoff_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PushPrefixRequest(_message.Message):
    __slots__ = ("fetch_id", "source", "target", "names", "block_ids")
    FETCH_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    fetch_id: str
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerEndpoint
    names: bytes
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, fetch_id: _Optional[str] = ..., source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerEndpoint, _Mapping]] = ..., names: _Optional[bytes] = ..., block_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class PushPrefixResponse(_message.Message):
    __slots__ = ("num_blocks", "refusal", "write_s", "digests")
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    WRITE_S_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    num_blocks: int
    refusal: str
    write_s: float
    digests: _containers.RepeatedCompositeFieldContainer[_handoff_pb2.KvDigest]
    def __init__(self, num_blocks: _Optional[int] = ..., refusal: _Optional[str] = ..., write_s: _Optional[float] = ..., digests: _Optional[_Iterable[_Union[_handoff_pb2.KvDigest, _Mapping]]] = ...) -> None: ...

class EndPushRequest(_message.Message):
    __slots__ = ("fetch_id", "source", "target", "is_corrupt")
    FETCH_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    IS_CORRUPT_FIELD_NUMBER: _ClassVar[int]
    fetch_id: str
    source: _common_pb2.WorkerId
    target: _common_pb2.WorkerId
    is_corrupt: bool
    def __init__(self, fetch_id: _Optional[str] = ..., source: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., target: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., is_corrupt: _Optional[bool] = ...) -> None: ...

class EndPushResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
