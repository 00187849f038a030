"""Protobuf messages as dictionaries, for `--json`. Not protobuf's own JSON, where 64-bit numbers are texts."""

import re
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message


def as_dict(message: Message) -> dict[str, Any]:
    """All fields under their protobuf names, zero ones included; enums as words, absent messages as None."""
    return {
        field.name: _field_value(field, getattr(message, field.name), message) for field in message.DESCRIPTOR.fields
    }


def enum_word(enum: EnumDescriptor, number: int) -> str:
    """A value's name without the enum's: `prefill` of `ROLE_PREFILL`. Of a number that has no name, the number."""
    value = enum.values_by_number.get(number)
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper() + "_"
    return str(number) if value is None else str(value.name).removeprefix(prefix).lower()


def _field_value(field: Any, value: Any, message: Message) -> Any:  # noqa: ANN401 - a descriptor, and any field's
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_single_value(field, each) for each in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _single_value(field, value)


def _single_value(field: Any, value: Any) -> Any:  # noqa: ANN401 - a descriptor, and any field's
    if field.message_type is not None:
        return as_dict(value)
    return enum_word(field.enum_type, value) if field.enum_type is not None else value
