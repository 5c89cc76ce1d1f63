"""Spans as bytes of OTLP, encoded by hand as in `envoy/server/answers.py`: the official messages would be a dependency.

Source of the numbers: opentelemetry/proto/trace/v1/trace.proto, common.proto and trace_service.proto. The tests read
every span with the official messages.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from extproc.wire.framing.varint import varint

Value = str | int | float | bool | Sequence[str]

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans."""
_ERROR = 2  # StatusCode
_fixed64, _double = struct.Struct("<Q").pack, struct.Struct("<d").pack


class TraceContext(NamedTuple):
    """The ids of a span, as in W3C trace context."""

    trace: bytes  # 16 bytes
    span: bytes  # 8 bytes
    sampled: bool


def context(traceparent: str) -> TraceContext | None:
    """The caller's span in a `traceparent`; None for one that is malformed or has zero ids.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    parts = traceparent.split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2] or parts[0] == "ff":
        return None
    try:
        _, trace, span, flags = map(bytes.fromhex, parts[:4])
    except ValueError:
        return None
    return TraceContext(trace, span, bool(flags[0] & 1)) if any(trace) and any(span) else None


class Span(NamedTuple):
    """A span. Times are nanoseconds since the epoch. `error` is empty without an error."""

    id: bytes
    parent: TraceContext
    name: str
    kind: int
    start: int
    end: int
    attributes: Mapping[str, Value]
    error: str = ""
    link: TraceContext | None = None

    def encode(self) -> bytes:
        """A span, encoded as the message `Span`."""
        parts = [
            _field(1, self.parent.trace),
            _field(2, self.id),
            _field(4, self.parent.span),
            _field(5, _text(self.name)),
            _number(6, self.kind),
            b"\x39" + _fixed64(self.start),
            b"\x41" + _fixed64(self.end),
            *(_field(9, _pair(key, value)) for key, value in self.attributes.items()),
        ]
        if self.link is not None:
            parts.append(_field(13, _field(1, self.link.trace) + _field(2, self.link.span)))
        if self.error:
            parts.append(_field(15, _field(2, _text(self.error)) + _number(3, _ERROR)))
        return b"".join(parts)


def request(service: str, spans: Sequence[bytes]) -> bytes:
    """An ExportTraceServiceRequest of encoded spans."""
    resource = _field(1, _pair("service.name", service))
    scope = _field(1, _field(1, b"extproc"))
    return _field(1, _field(1, resource) + _field(2, scope + b"".join([_field(2, span) for span in spans])))


def _pair(key: str, value: Value) -> bytes:
    return _field(1, key.encode()) + _field(2, _value(value))


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return _field(1, _text(value))
    if isinstance(value, bool):
        return _number(2, value)
    if isinstance(value, int):
        return _number(3, value)
    if isinstance(value, float):
        return b"\x21" + _double(value)
    return _field(5, b"".join([_field(1, _value(each)) for each in value]))


def _text(value: str) -> bytes:
    return value.encode(errors="replace")


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)
