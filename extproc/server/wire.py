"""ext_proc messages in, ext_proc messages out: the only file that knows the protocol.

Source: envoy/service/ext_proc/v3/external_processor.proto. Envoy's observed behaviour is in ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

from extproc.pb import extproc_pb2 as pb
from extproc.words import contract
from extproc.words.actions import CONTINUE, Attachment, Chunk, Continue, LocalReply
from extproc.words.exchange import NOTHING_VERIFIED, Verified

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD = "Process"

_MAX_CHUNK = 62_000  # bytes; Envoy drops larger pieces of a FULL_DUPLEX_STREAMED body
_OVERWRITE = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD

# An override replaces the whole set, so every field is given: leaving one out would turn the request body off.
_READ_ANSWER = pb.ProcessingMode(
    request_header_mode=pb.ProcessingMode.SEND,
    request_body_mode=pb.ProcessingMode.BUFFERED,
    response_header_mode=pb.ProcessingMode.SEND,
    response_body_mode=pb.ProcessingMode.FULL_DUPLEX_STREAMED,
    request_trailer_mode=pb.ProcessingMode.SKIP,
    response_trailer_mode=pb.ProcessingMode.SEND,
)


_NOTHING = pb.HeadersResponse(response=pb.CommonResponse())
_UNCHANGED = {
    "request_headers": pb.ProcessingResponse(request_headers=_NOTHING).SerializeToString(),
    "response_headers": pb.ProcessingResponse(response_headers=_NOTHING).SerializeToString(),
}


class UnexpectedMessage(Exception):  # noqa: N818
    """A message that Envoy's configuration should never make it send."""


async def converse(attachment: Attachment, data: bytes) -> Sequence[bytes]:
    """Give one message to the attachment and return the messages for Envoy, in order; possibly none."""
    message = pb.ProcessingRequest.FromString(data)
    phase = message.WhichOneof("request")
    if phase == "request_headers":
        part = message.request_headers
        verified = _verified(message)
        return [_headers(phase, await attachment.on_request_headers(read_headers(part), part.end_of_stream, verified))]
    if phase == "request_body":
        return [_body(phase, await attachment.on_request_body(message.request_body.body))]
    if phase == "response_headers":
        part = message.response_headers
        action = await attachment.on_response_headers(read_headers(part), _attributes(message), part.end_of_stream)
        return [] if action is None else [_headers(phase, action)]
    if phase == "response_body":
        body = message.response_body
        return _chunks(await attachment.on_response_body(body.body, body.end_of_stream))
    if phase == "response_trailers":  # the body ended without a last chunk
        last = await attachment.on_response_body(b"", True)
        if isinstance(last.head, LocalReply):
            return _chunks(last)
        trailers = pb.ProcessingResponse(response_trailers=pb.TrailersResponse())
        return [*_chunks(Chunk(last.body, head=last.head)), trailers.SerializeToString()]
    raise UnexpectedMessage(str(phase))


def read_headers(part: pb.HttpHeaders) -> Mapping[str, str]:
    """Headers by lower-case name; the values of a repeated one are joined with a comma."""
    headers: dict[str, str] = {}
    for header in part.headers.headers:
        key = header.key
        value = header.raw_value.decode("utf-8", "replace")
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
    """Envoy's findings about the client's token and certificate, sent with the request's headers."""
    if not message.attributes and not message.HasField("metadata_context"):
        return NOTHING_VERIFIED
    namespaces = message.metadata_context.filter_metadata
    token = _plain_struct(namespaces[contract.JWT_NAMESPACE]) if contract.JWT_NAMESPACE in namespaces else {}
    return Verified(token, _attributes(message))


def _plain_struct(struct: Struct) -> dict[str, Any]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    """A value as in JSON. Numbers are doubles on the way; whole ones come out as int."""
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
        return _answer(action)
    if action is CONTINUE:
        return _UNCHANGED[phase]
    message = pb.ProcessingResponse()
    common = getattr(message, phase).response
    common.SetInParent()
    _mutate(common, action)
    if action.read_answer:
        message.mode_override.CopyFrom(_READ_ANSWER)
    return message.SerializeToString()


def _body(phase: str, action: Continue | LocalReply) -> bytes:
    if isinstance(action, LocalReply):
        return _answer(action)
    message = pb.ProcessingResponse()
    common = getattr(message, phase).response
    common.SetInParent()
    _mutate(common, action)
    if action.body is not None:
        common.body_mutation.body = action.body
        _set(common.header_mutation, "content-length", str(len(action.body)))
    common.clear_route_cache = action.reroute
    if action.order:
        message.dynamic_metadata.CopyFrom(_order(action.order))
    return message.SerializeToString()


def _mutate(common: pb.CommonResponse, action: Continue) -> None:
    if action.set_headers or action.remove_headers:
        mutation = common.header_mutation
        for name, value in action.set_headers.items():
            _set(mutation, name, value)
        mutation.remove_headers.extend(action.remove_headers)


def _set(mutation: pb.HeaderMutation, name: str, value: str) -> None:
    # Only raw_value: Envoy ignores `value` here and answers 500 where both are given.
    option = mutation.set_headers.add()
    option.append_action = _OVERWRITE
    header = option.header
    header.key = name
    header.raw_value = value.encode()


def _answer(action: LocalReply) -> bytes:
    message = pb.ProcessingResponse()
    immediate = message.immediate_response
    immediate.status.code = action.status
    immediate.body = action.body
    immediate.details = f"extproc_{action.reason}"  # local_reply_config passes an answer with these details unchanged
    for name, value in action.headers.items():
        _set(immediate.headers, name, value)
    return message.SerializeToString()


def _chunks(chunk: Chunk) -> Sequence[bytes]:
    body = chunk.body
    if chunk.head is not None:
        head = _headers("response_headers", chunk.head)
        return [head] if isinstance(chunk.head, LocalReply) else [head, *_chunks(Chunk(body, chunk.end))]
    if len(body) <= _MAX_CHUNK:
        return [_chunk(body, chunk.end)] if body or chunk.end else ()
    pieces = [body[start : start + _MAX_CHUNK] for start in range(0, len(body), _MAX_CHUNK)]
    return [_chunk(piece, chunk.end and index == len(pieces) - 1) for index, piece in enumerate(pieces)]


def _chunk(body: bytes, end: bool) -> bytes:
    message = pb.ProcessingResponse()
    streamed = message.response_body.response.body_mutation.streamed_response
    streamed.body = body
    streamed.end_of_stream = end
    return message.SerializeToString()


@lru_cache(maxsize=1024)
def _order(clusters: tuple[str, ...]) -> Struct:
    """Metadata for Envoy's priority_group specifier: the cluster of each try, in order."""
    groups: Any = [
        {"name": str(index), "clusters": [{"cluster_name": cluster, "weight": 1}]}
        for index, cluster in enumerate(clusters)
    ]
    metadata = Struct()
    metadata.update({contract.ORDER_NAMESPACE: {contract.ORDER_KEY: groups}})
    return metadata
