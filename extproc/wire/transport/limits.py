"""Limits on all that the peer of a connection controls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class TransportLimits:
    """Limits; above one a call, a stream or a connection ends. Sizes are bytes, rates are counts within a second.

    The comment at each limit names the answer to the peer: a gRPC status ends a call, RST_STREAM a stream, GOAWAY a
    connection.
    """

    message: int = 80 << 20  # one gRPC message, for example a buffered body: status 8 RESOURCE_EXHAUSTED
    queued_messages: int = 20_000  # queued messages of a stream: status 8 RESOURCE_EXHAUSTED
    # Concurrent streams: RST_STREAM REFUSED_STREAM. A low limit would make Envoy wait or open connections.
    streams: int = 100_000
    # The stream window is small: a small message waits behind all that other streams may send on the connection.
    stream_window: int = 256 << 10  # unhandled data of a stream: GOAWAY FLOW_CONTROL_ERROR
    connection_window: int = 16 << 20  # unhandled data of all streams: GOAWAY FLOW_CONTROL_ERROR
    frame: int = 16_384  # payload of a frame, the least that HTTP/2 allows: GOAWAY FRAME_SIZE_ERROR
    header_block: int = 32 << 10  # compressed headers of a stream: GOAWAY ENHANCE_YOUR_CALM
    continuations: int = 16  # CONTINUATION frames of a header block: GOAWAY ENHANCE_YOUR_CALM
    header_list: int = 64 << 10  # decoded headers, plus 32 for each: GOAWAY ENHANCE_YOUR_CALM
    # Rates, answered with GOAWAY ENHANCE_YOUR_CALM
    resets: int = 10_000  # streams reset or refused before an answer
    pings: int = 1_000
    settings: int = 20  # SETTINGS frames; each may change every stream
    empty_data: int = 1_000  # DATA frames without data and without END_STREAM
    idle_frames: int = 1_000  # frames without effect: PRIORITY, GOAWAY, unknown types
    # Limits of the driver
    unread: int = 1 << 20  # bytes of unread answers of a peer; above it, reading from the peer stops
    turn: int = 100  # consecutive events of a connection, before other connections have a turn
    connections: int = 1_000  # concurrent connections; one more is closed at once
