"""Protobuf messages as plain dictionaries, for `--json`. Not protobuf's own JSON, which has 64-bit numbers as texts."""

import re
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message


def as_dict(message: Message) -> dict[str, Any]:
    """All fields under their protobuf names, zero ones included; enums as words, absent messages as None."""
    return {field.name: _field_value(field, getattr(message, field.name), message) for field in _fields(message)}


def enum_word(enum: EnumDescriptor, number: int) -> str:
    """A value's name without the enum's: `prefill` of `ROLE_PREFILL`. A number that it does not have stays a number."""
    value = enum.values_by_number.get(number)
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper() + "_"
    return str(number) if value is None else str(value.name).removeprefix(prefix).lower()


def _fields(message: Message) -> list[FieldDescriptor]:
    return list(message.DESCRIPTOR.fields)


def _field_value(field: FieldDescriptor, value: Any, message: Message) -> Any:  # noqa: ANN401 - any field's
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_single_value(field, each) for each in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _single_value(field, value)


def _single_value(field: FieldDescriptor, value: Any) -> Any:  # noqa: ANN401 - any field's
    if field.message_type is not None:
        return as_dict(value)
    return enum_word(field.enum_type, value) if field.enum_type is not None else value
