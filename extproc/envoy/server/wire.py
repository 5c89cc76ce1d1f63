"""ext_proc messages to attachments' methods, and their actions to messages. Only this file and `answers` know the
protocol.

Source: envoy/service/ext_proc/v3/external_processor.proto. Envoy's observed behaviour is in docs/envoy.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct, Value

from extproc.envoy.server import answers
from extproc.wire.pb import extproc_pb2 as pb
from extproc.wire.transport import Malformed
from extproc.words import contract
from extproc.words.actions import CONTINUE, Attachment, Chunk, Continue, LocalReply
from extproc.words.exchange import NOTHING_VERIFIED, Verified

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD = "Process"

_LARGE = 256 << 10  # bytes of a large message
_MOST_BESIDE = 64 << 10  # most bytes of a message beside its body
_REQUEST_BODY, _BODY = b"\x22", b"\x0a"  # tags of ProcessingRequest.request_body and HttpBody.body
_MAX_CHUNK = 62_000  # bytes; Envoy drops larger pieces of a FULL_DUPLEX_STREAMED body


_FIRST, _HEAD, _BODIES = 0, 2, 3  # order of phases
_PLACES = {
    "request_headers": _FIRST,
    "request_body": 1,
    "response_headers": _HEAD,
    "response_body": _BODIES,
    "response_trailers": 4,
}
_Message = TypeVar("_Message", bound=Message)


class Order:
    """Order of a stream's messages: each phase once, except for pieces of an answer's body. An answer without a request
    is Envoy's own, for a request that it refused before the filter.
    """

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at = -1

    @property
    def of_request(self) -> bool:
        """True until the answer begins."""
        return self._at < _HEAD

    def check(self, phase: str | None) -> None:
        """Raises Malformed for a phase out of order."""
        place, at = _PLACES.get(phase or "", -1), self._at
        if place < at or (place == at and place != _BODIES) or (at < _FIRST and place not in (_FIRST, _HEAD)):
            raise Malformed(f"{phase} at the wrong place")
        if place >= _BODIES > _HEAD > at:
            raise Malformed(f"{phase} before the answer's headers")
        self._at = place


def parsed(kind: type[_Message], data: bytes | memoryview) -> _Message:
    """A message of type `kind`. Raises Malformed."""
    try:
        return kind.FromString(data if isinstance(data, bytes) else bytes(data))
    except DecodeError:
        raise Malformed(f"no {kind.DESCRIPTOR.name}") from None


async def converse(attachment: Attachment, data: bytes | memoryview, order: Order | None = None) -> Sequence[bytes]:
    """Pass one message to the attachment, and return the messages for Envoy in order, possibly none. Raises
    Malformed.
    """
    if len(data) > _LARGE and (large := _large_body(data)) is not None:
        if order is not None:
            order.check("request_body")
        del data  # leaves `body` as the only copy
        return [_onward(await attachment.on_request_body(large))]
    message = parsed(pb.ProcessingRequest, data)
    phase = message.WhichOneof("request")
    if order is not None:
        order.check(phase)
    if phase == "request_headers":
        part = message.request_headers
        verified = _verified(message)
        return [_headers(phase, await attachment.on_request_headers(read_headers(part), part.end_of_stream, verified))]
    if phase == "request_body":
        return [_onward(await attachment.on_request_body(message.request_body.body))]
    if phase == "response_headers":
        part = message.response_headers
        action = await attachment.on_response_headers(read_headers(part), _attributes(message), part.end_of_stream)
        return [] if action is None else [_headers(phase, action)]
    if phase == "response_body":
        body = message.response_body
        return _chunks(await attachment.on_response_body(body.body, body.end_of_stream))
    if phase == "response_trailers":  # the body ended without a last piece
        last = await attachment.on_response_body(b"", True)
        assert not attachment.more, "every piece was worked on to its end before"
        if isinstance(last.head, LocalReply):
            return _chunks(last)
        return [*_chunks(Chunk(last.body, head=last.head)), answers.TRAILERS_UNCHANGED]
    raise Malformed(f"a message of the kind {phase}")


async def go_on(attachment: Attachment) -> Sequence[bytes]:
    """Messages of the next step of an attachment with `more`."""
    return _chunks(await attachment.on_response_body(b"", False))


def silence(attachment: Attachment, now: float) -> Sequence[bytes]:
    """Messages of an attachment while Envoy is silent, usually none."""
    check = getattr(attachment, "on_silence", None)
    chunk = None if check is None else check(now)
    return () if chunk is None else _chunks(chunk)


async def refuse(attachment: Attachment) -> Sequence[bytes]:
    """Answer to a body that `attachment` did not admit."""
    return [_onward(await attachment.on_request_body(b""))]


def _onward(action: Continue | LocalReply) -> bytes:
    return answers.immediate(action) if isinstance(action, LocalReply) else answers.body(action)


def _large_body(data: bytes | memoryview) -> bytes | None:
    """Body of a ProcessingRequest with a large request body and little else; None for another message. protobuf would
    copy the body twice.
    """
    if data[:1] != _REQUEST_BODY:
        return None
    size, at = _varint(data, 1)
    end = at + size
    if data[at : at + 1] != _BODY:
        return None
    size, at = _varint(data, at + 1)
    if at + size > end or end > len(data) or len(data) - size > _MOST_BESIDE:
        return None
    return bytes(data[at : at + size])


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A varint at `at`, and the offset behind it."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise Malformed("no ProcessingRequest")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80 or shift > 63:
            return value, at


def read_headers(part: pb.HttpHeaders) -> Mapping[str, str]:
    """Headers by lower-case name. Values of a repeated header are joined with a comma."""
    headers: dict[str, str] = {}
    for header in part.headers.headers:
        key, value = header.key, header.raw_value.decode("utf-8", "replace")
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    return headers


def _attributes(message: pb.ProcessingRequest) -> Mapping[str, object]:
    found: dict[str, object] = {}
    for struct in message.attributes.values():
        for name, value in struct.fields.items():
            kind = value.WhichOneof("kind")
            if kind in ("number_value", "string_value", "bool_value"):
                found[name] = getattr(value, kind)
    return found


def _verified(message: pb.ProcessingRequest) -> Verified:
    """Facts about the client's token and certificate that Envoy sent with the request's headers."""
    if not message.attributes and not message.HasField("metadata_context"):
        return NOTHING_VERIFIED
    namespaces = message.metadata_context.filter_metadata
    token = _plain_struct(namespaces[contract.JWT_NAMESPACE]) if contract.JWT_NAMESPACE in namespaces else {}
    return Verified(token, _attributes(message))


def _plain_struct(struct: Struct) -> dict[str, Any]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    """A Struct's value as in JSON. Its numbers are doubles; whole ones become int."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    return getattr(value, kind) if kind in ("string_value", "bool_value") else None


def _headers(phase: str, action: Continue | LocalReply) -> bytes:
    if isinstance(action, LocalReply):
        return answers.immediate(action)
    return answers.UNCHANGED[phase] if action is CONTINUE else answers.headers(phase, action)


def _chunks(chunk: Chunk) -> Sequence[bytes]:
    body = chunk.body
    if chunk.head is not None:
        head = _headers("response_headers", chunk.head)
        return [head] if isinstance(chunk.head, LocalReply) else [head, *_chunks(Chunk(body, chunk.end))]
    if len(body) <= _MAX_CHUNK:
        return [answers.piece(body, chunk.end)] if body or chunk.end else ()
    pieces = [body[start : start + _MAX_CHUNK] for start in range(0, len(body), _MAX_CHUNK)]
    return [answers.piece(piece, chunk.end and index == len(pieces) - 1) for index, piece in enumerate(pieces)]
