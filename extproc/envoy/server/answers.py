"""ext_proc answers as bytes, without message objects, which cost three times as much.

A protobuf field is a tag (its number and wire type), a length and its bytes; zero values are left out. The tests
compare every answer with the generated messages. Source of the numbers: protos/extproc.proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache
from typing import Any

from google.protobuf.struct_pb2 import Struct

from extproc.wire.framing.varint import varint
from extproc.wire.pb import extproc_pb2 as pb
from extproc.words import contract
from extproc.words.actions import Continue, LocalReply

_length = lru_cache(maxsize=1024)(varint)
_PHASES = {"request_headers": b"\x0a", "response_headers": b"\x12", "request_body": b"\x1a"}
_APPEND_ACTION = b"\x18" + bytes([pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD])
_CLEAR_ROUTE_CACHE = b"\x28\x01"
_END_OF_STREAM = b"\x10\x01"
UNCHANGED = {
    "request_headers": pb.ProcessingResponse(request_headers={"response": {}}).SerializeToString(),
    "response_headers": pb.ProcessingResponse(response_headers={"response": {}}).SerializeToString(),
}
"""Answers to headers without changes."""
TRAILERS_UNCHANGED = pb.ProcessingResponse(response_trailers={}).SerializeToString()

_EMPTY_PIECE = pb.ProcessingResponse(
    response_body={"response": {"body_mutation": {"streamed_response": {}}}}
).SerializeToString()
_LAST_PIECE = pb.ProcessingResponse(
    response_body={"response": {"body_mutation": {"streamed_response": {"end_of_stream": True}}}}
).SerializeToString()

# An override replaces the whole processing mode: leaving out a field would turn the request body off.
_READ_ANSWER = pb.ProcessingResponse(
    mode_override=pb.ProcessingMode(
        request_header_mode=pb.ProcessingMode.SEND,
        request_body_mode=pb.ProcessingMode.BUFFERED,
        response_header_mode=pb.ProcessingMode.SEND,
        response_body_mode=pb.ProcessingMode.FULL_DUPLEX_STREAMED,
        request_trailer_mode=pb.ProcessingMode.SKIP,
        response_trailer_mode=pb.ProcessingMode.SEND,
    )
).SerializeToString()
_READ_ALONE = {phase: unchanged + _READ_ANSWER for phase, unchanged in UNCHANGED.items()}


def headers(phase: str, action: Continue) -> bytes:
    """Answer to `request_headers` or `response_headers`."""
    if action.read_answer and not (action.set_headers or action.remove_headers or action.order or action.reroute):
        return _READ_ALONE[phase]
    common = _mutation(action) + _CLEAR_ROUTE_CACHE if action.reroute else _mutation(action)
    message = _PHASES[phase] + _sized(b"\x0a" + _sized(common))
    if action.order:
        message += _order(action.order)
    return message + _READ_ANSWER if action.read_answer else message


def body(action: Continue) -> bytes:
    """Answer to `request_body`."""
    order = _order(action.order) if action.order else b""
    if action.body is None:
        common = _mutation(action) + _CLEAR_ROUTE_CACHE if action.reroute else _mutation(action)
        return _PHASES["request_body"] + _sized(b"\x0a" + _sized(common)) + order
    size = len(action.body)  # possibly megabytes, so the body is copied only once
    before = b"\x0a" + _length(size)
    before = _mutation(action) + b"\x1a" + _length(len(before) + size) + before
    after = _CLEAR_ROUTE_CACHE if action.reroute else b""
    for tag in (b"\x0a", _PHASES["request_body"]):  # fields: response, request_body
        before = tag + _length(len(before) + size + len(after)) + before
    return b"".join((before, action.body, after, order))


def piece(data: bytes, end: bool) -> bytes:
    """A piece of a FULL_DUPLEX_STREAMED response body; `end` marks the last one."""
    if not data:
        return _LAST_PIECE if end else _EMPTY_PIECE
    before = _before_piece(len(data), end)
    return before + data + _END_OF_STREAM if end else before + data


@lru_cache(maxsize=1024)
def _before_piece(size: int, end: bool) -> bytes:
    """Bytes in front of the data of a piece with `size` bytes."""
    streamed = b"\x0a" + _length(size)
    left = size + len(_END_OF_STREAM) * end
    # Fields: streamed_response, body_mutation, response, response_body.
    for tag in (b"\x1a", b"\x1a", b"\x0a", b"\x22"):
        streamed = tag + _length(len(streamed) + left) + streamed
    return streamed


def more_time(longest_wait: float) -> bytes:
    """A word that the answer to the message before takes up to `longest_wait` seconds longer than usual."""
    message = pb.ProcessingResponse()
    message.override_message_timeout.FromTimedelta(timedelta(seconds=contract.ANSWER_SECONDS + longest_wait))
    return message.SerializeToString()


def immediate(reply: LocalReply) -> bytes:
    """An answer of the gateway. local_reply_config leaves answers unchanged if their details begin with `extproc_`."""
    message = pb.ProcessingResponse()
    answer = message.immediate_response
    answer.status.code = reply.status
    answer.body = reply.body
    answer.details = f"extproc_{reply.reason}"
    answer.headers.MergeFromString(_set(reply.headers.items()))
    return message.SerializeToString()


def _mutation(action: Continue) -> bytes:
    """Field `header_mutation` of a CommonResponse; empty without changes of headers."""
    mutation = _set(action.set_headers.items())
    if action.body is not None:  # a new body needs a new length
        mutation += _option("content-length", str(len(action.body)))
    if action.remove_headers:
        mutation += b"".join([_removed(name) for name in action.remove_headers])
    return b"\x12" + _sized(mutation) if mutation else b""


def _set(headers: Iterable[tuple[str, str]]) -> bytes:
    return b"".join([_option(name, value) for name, value in headers])


def _option(name: str, value: str) -> bytes:
    """Element of `set_headers`, with raw_value only: Envoy ignores `value`, and answers 500 if both are set."""
    raw = value.encode()
    return _before_value(name, len(raw)) + raw + _APPEND_ACTION


@lru_cache(maxsize=4096)
def _before_value(name: str, size: int) -> bytes:
    """Bytes in front of a header's value with `size` bytes."""
    header = b"\x0a" + _sized(name.encode())
    if size:
        header += b"\x1a" + _length(size)
    option = b"\x0a" + _length(len(header) + size) + header
    return b"\x0a" + _length(len(option) + size + len(_APPEND_ACTION)) + option


@lru_cache(maxsize=1024)
def _removed(name: str) -> bytes:
    """Element of `remove_headers`."""
    return b"\x12" + _sized(name.encode())


def _sized(data: bytes) -> bytes:
    """`data` with its length in front."""
    return _length(len(data)) + data


@lru_cache(maxsize=1024)
def _order(clusters: tuple[str, ...]) -> bytes:
    """Metadata for Envoy's priority_group specifier: each try's cluster, in order."""
    groups: Any = [
        {"name": str(index), "clusters": [{"cluster_name": cluster, "weight": 1}]}
        for index, cluster in enumerate(clusters)
    ]
    metadata = Struct()
    metadata.update({contract.ORDER_NAMESPACE: {contract.ORDER_KEY: groups}})
    return pb.ProcessingResponse(dynamic_metadata=metadata).SerializeToString()
