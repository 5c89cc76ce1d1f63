"""Limits on every number that the peer of a connection controls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class TransportLimits:
    """Numbers beyond which a call, a stream or a connection ends. Sizes are bytes, rates are counts within a second.

    The comment beside each names the answer to the peer: a gRPC status ends a call, RST_STREAM a stream, GOAWAY a
    connection.
    """

    message: int = 80 << 20  # one gRPC message, as a buffered body is: status 8 RESOURCE_EXHAUSTED
    queued_messages: int = 20_000  # messages of a stream that wait for its handler: status 8 RESOURCE_EXHAUSTED
    # streams at the same time; few would make Envoy wait or connect again: RST_STREAM REFUSED_STREAM
    streams: int = 100_000
    # A small message waits behind what the windows of others let into the same connection.
    stream_window: int = 256 << 10  # data of a stream that waits for its handler: GOAWAY FLOW_CONTROL_ERROR
    connection_window: int = 16 << 20  # data of all streams that wait for handlers: GOAWAY FLOW_CONTROL_ERROR
    frame: int = 16_384  # payload of a frame, the least that HTTP/2 allows: GOAWAY FRAME_SIZE_ERROR
    header_block: int = 32 << 10  # headers of a stream, compressed: GOAWAY ENHANCE_YOUR_CALM
    continuations: int = 16  # CONTINUATION frames of a header block: GOAWAY ENHANCE_YOUR_CALM
    header_list: int = 64 << 10  # headers, decoded, and 32 for each: GOAWAY ENHANCE_YOUR_CALM
    # Rates; beyond each: GOAWAY ENHANCE_YOUR_CALM
    resets: int = 10_000  # streams that end before they were answered: reset or refused
    pings: int = 1_000
    settings: int = 20  # SETTINGS frames; each may touch every stream
    empty_data: int = 1_000  # DATA frames without data and without an end
    idle_frames: int = 1_000  # frames without effect here: PRIORITY, GOAWAY, unknown types
    # Limits of the driver
    unread: int = 1 << 20  # answers that wait for a peer which does not read; beyond it, nothing is read from the peer
    turn: int = 100  # events of a connection that are handled in a row, before the turn of others
    connections: int = 1_000  # connections at the same time; one more is closed at once
