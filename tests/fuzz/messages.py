"""hypothesis strategies for any protobuf message: each field present or not, with edge values too."""

from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

MAX_REPEATED = 4
MAX_DEPTH = 6  # of the messages of this product none is deeper
Strategies = Mapping[str, st.SearchStrategy[Any]]

_INT32 = st.integers(-(2**31), 2**31 - 1)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_UINT32 = st.integers(0, 2**32 - 1) | st.integers(0, 300)
_UINT64 = st.integers(0, 2**64 - 1)
_TEXT = st.text(max_size=12) | st.sampled_from(["", "\0", "é\u202e", "x" * 5000, "127.0.0.1:1", "user", "prefill-0"])
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20),
    FieldDescriptor.TYPE_ENUM: _INT32 | st.integers(0, 8),
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
}


def any_message(descriptor: Descriptor, known: Strategies, depth: int = 0) -> st.SearchStrategy[Message]:
    """Messages of a type; `known` has better values for fields, by full name, than any value of their type."""
    fields = {field.name: _field(field, known, depth) for field in descriptor.fields if depth < MAX_DEPTH}
    choices = [
        st.one_of([st.fixed_dictionaries({field.name: fields.pop(field.name)}) for field in choice.fields])
        for choice in descriptor.oneofs
        if len(choice.fields) > 1 and fields  # of one field: that of an `optional`
    ]
    always = {name: value for name, value in fields.items() if f"{descriptor.full_name}.{name}" in known}
    rest = {name: value for name, value in fields.items() if name not in always}
    parts = st.tuples(st.fixed_dictionaries(always, optional=rest), *(choice | st.just({}) for choice in choices))
    return parts.map(lambda dicts: GetMessageClass(descriptor)(**dict(ChainMap(*dicts))))


def _field(field: FieldDescriptor, known: Strategies, depth: int) -> st.SearchStrategy[Any]:
    if field.full_name in known:
        return known[field.full_name]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (_single(entry, known, depth) for entry in field.message_type.fields)
        return st.dictionaries(key, value, max_size=MAX_REPEATED)
    if field.is_repeated:
        return st.lists(_single(field, known, depth), max_size=MAX_REPEATED)
    return _single(field, known, depth)


def _single(field: FieldDescriptor, known: Strategies, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return any_message(field.message_type, known, depth + 1)
    return _SCALARS[field.type]
