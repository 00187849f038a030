from baton.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeadRequest(_message.Message):
    __slots__ = ("set_inbound", "release", "add_peer", "remove_peer", "move", "checksum")
    SET_INBOUND_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    ADD_PEER_FIELD_NUMBER: _ClassVar[int]
    REMOVE_PEER_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    set_inbound: SetInboundOrder
    release: ReleaseOrder
    add_peer: AddRankPeerOrder
    remove_peer: RemoveRankPeerOrder
    move: RankMoveOrder
    checksum: RankChecksumOrder
    def __init__(self, set_inbound: _Optional[_Union[SetInboundOrder, _Mapping]] = ..., release: _Optional[_Union[ReleaseOrder, _Mapping]] = ..., add_peer: _Optional[_Union[AddRankPeerOrder, _Mapping]] = ..., remove_peer: _Optional[_Union[RemoveRankPeerOrder, _Mapping]] = ..., move: _Optional[_Union[RankMoveOrder, _Mapping]] = ..., checksum: _Optional[_Union[RankChecksumOrder, _Mapping]] = ...) -> None: ...

class AddRankPeerOrder(_message.Message):
    __slots__ = ("order_id", "peer", "transport", "metadata", "layout", "first_head", "num_blocks", "is_expected")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    FIRST_HEAD_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    IS_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    peer: _common_pb2.WorkerId
    transport: str
    metadata: bytes
    layout: _common_pb2.KvLayout
    first_head: int
    num_blocks: int
    is_expected: bool
    def __init__(self, order_id: _Optional[int] = ..., peer: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., transport: _Optional[str] = ..., metadata: _Optional[bytes] = ..., layout: _Optional[_Union[_common_pb2.KvLayout, _Mapping]] = ..., first_head: _Optional[int] = ..., num_blocks: _Optional[int] = ..., is_expected: _Optional[bool] = ...) -> None: ...

class RemoveRankPeerOrder(_message.Message):
    __slots__ = ("peer", "is_dead", "order_id")
    PEER_FIELD_NUMBER: _ClassVar[int]
    IS_DEAD_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    peer: _common_pb2.WorkerId
    is_dead: bool
    order_id: int
    def __init__(self, peer: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., is_dead: _Optional[bool] = ..., order_id: _Optional[int] = ...) -> None: ...

class RankMoveOrder(_message.Message):
    __slots__ = ("order_id", "peer", "is_read", "local_ids", "remote_ids", "skip_tokens", "final_after_step")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    IS_READ_FIELD_NUMBER: _ClassVar[int]
    LOCAL_IDS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_IDS_FIELD_NUMBER: _ClassVar[int]
    SKIP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FINAL_AFTER_STEP_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    peer: _common_pb2.WorkerId
    is_read: bool
    local_ids: _containers.RepeatedScalarFieldContainer[int]
    remote_ids: _containers.RepeatedScalarFieldContainer[int]
    skip_tokens: int
    final_after_step: int
    def __init__(self, order_id: _Optional[int] = ..., peer: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., is_read: _Optional[bool] = ..., local_ids: _Optional[_Iterable[int]] = ..., remote_ids: _Optional[_Iterable[int]] = ..., skip_tokens: _Optional[int] = ..., final_after_step: _Optional[int] = ...) -> None: ...

class RankChecksumOrder(_message.Message):
    __slots__ = ("order_id", "parts")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    parts: _containers.RepeatedCompositeFieldContainer[RankBlockPart]
    def __init__(self, order_id: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[RankBlockPart, _Mapping]]] = ...) -> None: ...

class RankBlockPart(_message.Message):
    __slots__ = ("block_ids", "first_token", "num_tokens", "first_head", "num_heads")
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FIRST_HEAD_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    first_token: int
    num_tokens: int
    first_head: int
    num_heads: int
    def __init__(self, block_ids: _Optional[_Iterable[int]] = ..., first_token: _Optional[int] = ..., num_tokens: _Optional[int] = ..., first_head: _Optional[int] = ..., num_heads: _Optional[int] = ...) -> None: ...

class SetInboundOrder(_message.Message):
    __slots__ = ("num_inbound",)
    NUM_INBOUND_FIELD_NUMBER: _ClassVar[int]
    num_inbound: int
    def __init__(self, num_inbound: _Optional[int] = ...) -> None: ...

class ReleaseOrder(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeadResponse(_message.Message):
    __slots__ = ("hello", "peer_added", "move_ended", "parts_summed", "peer_removed")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PEER_ADDED_FIELD_NUMBER: _ClassVar[int]
    MOVE_ENDED_FIELD_NUMBER: _ClassVar[int]
    PARTS_SUMMED_FIELD_NUMBER: _ClassVar[int]
    PEER_REMOVED_FIELD_NUMBER: _ClassVar[int]
    hello: RankHello
    peer_added: RankPeerAdded
    move_ended: RankMoveEnded
    parts_summed: RankPartsSummed
    peer_removed: RankPeerRemoved
    def __init__(self, hello: _Optional[_Union[RankHello, _Mapping]] = ..., peer_added: _Optional[_Union[RankPeerAdded, _Mapping]] = ..., move_ended: _Optional[_Union[RankMoveEnded, _Mapping]] = ..., parts_summed: _Optional[_Union[RankPartsSummed, _Mapping]] = ..., peer_removed: _Optional[_Union[RankPeerRemoved, _Mapping]] = ...) -> None: ...

class RankHello(_message.Message):
    __slots__ = ("offers",)
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    offers: _containers.RepeatedCompositeFieldContainer[RankOffer]
    def __init__(self, offers: _Optional[_Iterable[_Union[RankOffer, _Mapping]]] = ...) -> None: ...

class RankOffer(_message.Message):
    __slots__ = ("transport", "metadata")
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    transport: str
    metadata: bytes
    def __init__(self, transport: _Optional[str] = ..., metadata: _Optional[bytes] = ...) -> None: ...

class RankPeerAdded(_message.Message):
    __slots__ = ("order_id", "path", "error")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    path: str
    error: RankError
    def __init__(self, order_id: _Optional[int] = ..., path: _Optional[str] = ..., error: _Optional[_Union[RankError, _Mapping]] = ...) -> None: ...

class RankPeerRemoved(_message.Message):
    __slots__ = ("order_id",)
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    def __init__(self, order_id: _Optional[int] = ...) -> None: ...

class RankMoveEnded(_message.Message):
    __slots__ = ("order_id", "num_bytes", "num_descriptors", "busy_s", "error")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    num_bytes: int
    num_descriptors: int
    busy_s: float
    error: RankError
    def __init__(self, order_id: _Optional[int] = ..., num_bytes: _Optional[int] = ..., num_descriptors: _Optional[int] = ..., busy_s: _Optional[float] = ..., error: _Optional[_Union[RankError, _Mapping]] = ...) -> None: ...

class RankError(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class RankPartsSummed(_message.Message):
    __slots__ = ("order_id", "values")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, order_id: _Optional[int] = ..., values: _Optional[_Iterable[int]] = ...) -> None: ...
