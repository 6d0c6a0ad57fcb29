"""Find weights that an ONNX file keeps in other files, without the package onnx.

A tensor of a file may name another file that holds its values. The checksum of the model does not
cover that file, so such a model is refused. This is a walk through protobuf's wire format
(https://protobuf.dev/programming-guides/encoding), along the messages of onnx.proto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) that lead to a tensor.
"""

from collections.abc import Iterator

# message: {field number: the message in it}
MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor",
                  23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}
TENSOR_NAME, TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 8, 13, 14  # fields of a tensor
VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5  # wire types
MAX_DEPTH = 64  # of messages in messages


def external_tensor(content: bytes) -> str | None:
    """The name of a tensor whose values lie in another file; None if there is none.

    `content` is a serialized `onnx.ModelProto`. ValueError if it is not protobuf.
    """
    return _search(memoryview(content), "model", 0)


def _search(message: memoryview, kind: str, depth: int) -> str | None:
    """`external_tensor` of one message."""
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} messages in one another")
    if kind == "tensor":
        return _external_name(message)
    for number, value in _fields(message):
        inner_kind = MESSAGES[kind].get(number)
        if inner_kind is None or isinstance(value, int):
            continue
        name = _search(value, inner_kind, depth + 1)
        if name is not None:
            return name
    return None


def _external_name(tensor: memoryview) -> str | None:
    """A tensor's name if its values lie in another file, else None."""
    name = ""
    is_external = False
    for number, value in _fields(tensor):
        if number == TENSOR_NAME and not isinstance(value, int):
            name = bytes(value).decode(errors="backslashreplace")
        elif number == TENSOR_EXTERNAL_DATA:
            is_external = True
        elif number == TENSOR_DATA_LOCATION and value != 0:
            is_external = True
    return name if is_external else None


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message, (number, value); a value is an int, or bytes of a known length."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == LENGTH_DELIMITED:
            length, position = _varint(message, position)
        elif wire_type == FIXED_64:
            length = 8
        elif wire_type == FIXED_32:
            length = 4
        else:
            raise ValueError(f"wire type {wire_type}, which protobuf does not have in ONNX files")
        if position + length > len(message):
            raise ValueError("a field is longer than its message")
        yield number, message[position:position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """The whole number that begins at a position, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):  # at most ten bytes of seven bits each
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number without an end")
