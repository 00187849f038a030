from baton.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeadRequest(_message.Message):
    __slots__ = ("add_peer", "remove_peer", "write", "expect_connection", "set_inbound", "release")
    ADD_PEER_FIELD_NUMBER: _ClassVar[int]
    REMOVE_PEER_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    EXPECT_CONNECTION_FIELD_NUMBER: _ClassVar[int]
    SET_INBOUND_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    add_peer: AddPeerOrder
    remove_peer: RemovePeerOrder
    write: WriteOrder
    expect_connection: ExpectConnectionOrder
    set_inbound: SetInboundOrder
    release: ReleaseOrder
    def __init__(self, add_peer: _Optional[_Union[AddPeerOrder, _Mapping]] = ..., remove_peer: _Optional[_Union[RemovePeerOrder, _Mapping]] = ..., write: _Optional[_Union[WriteOrder, _Mapping]] = ..., expect_connection: _Optional[_Union[ExpectConnectionOrder, _Mapping]] = ..., set_inbound: _Optional[_Union[SetInboundOrder, _Mapping]] = ..., release: _Optional[_Union[ReleaseOrder, _Mapping]] = ...) -> None: ...

class AddPeerOrder(_message.Message):
    __slots__ = ("order_id", "peer", "metadata")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    peer: _common_pb2.WorkerId
    metadata: bytes
    def __init__(self, order_id: _Optional[int] = ..., peer: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., metadata: _Optional[bytes] = ...) -> None: ...

class RemovePeerOrder(_message.Message):
    __slots__ = ("peer",)
    PEER_FIELD_NUMBER: _ClassVar[int]
    peer: _common_pb2.WorkerId
    def __init__(self, peer: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ...) -> None: ...

class WriteOrder(_message.Message):
    __slots__ = ("order_id", "peer", "local_ids", "remote_ids")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    LOCAL_IDS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_IDS_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    peer: _common_pb2.WorkerId
    local_ids: _containers.RepeatedScalarFieldContainer[int]
    remote_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, order_id: _Optional[int] = ..., peer: _Optional[_Union[_common_pb2.WorkerId, _Mapping]] = ..., local_ids: _Optional[_Iterable[int]] = ..., remote_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ExpectConnectionOrder(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetInboundOrder(_message.Message):
    __slots__ = ("num_inbound",)
    NUM_INBOUND_FIELD_NUMBER: _ClassVar[int]
    num_inbound: int
    def __init__(self, num_inbound: _Optional[int] = ...) -> None: ...

class ReleaseOrder(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeadResponse(_message.Message):
    __slots__ = ("hello", "ended")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    hello: RankHello
    ended: OrderEnded
    def __init__(self, hello: _Optional[_Union[RankHello, _Mapping]] = ..., ended: _Optional[_Union[OrderEnded, _Mapping]] = ...) -> None: ...

class RankHello(_message.Message):
    __slots__ = ("transport_metadata",)
    TRANSPORT_METADATA_FIELD_NUMBER: _ClassVar[int]
    transport_metadata: bytes
    def __init__(self, transport_metadata: _Optional[bytes] = ...) -> None: ...

class OrderEnded(_message.Message):
    __slots__ = ("order_id", "error")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    order_id: int
    error: str
    def __init__(self, order_id: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...
