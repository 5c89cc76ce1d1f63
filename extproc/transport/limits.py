"""Limits on everything that the peer of a connection controls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Limits:
    """Numbers beyond which a call, a stream or a connection ends. Sizes are bytes, rates are counts within a second.

    Beside each stands how the peer is told: a gRPC status ends a call, RST_STREAM a stream, GOAWAY a connection.
    """

    message: int = 80 << 20  # one gRPC message, as a buffered body is: status 8 RESOURCE_EXHAUSTED
    queued_messages: int = 20_000  # of a stream, waiting for its handler: status 8 RESOURCE_EXHAUSTED
    streams: int = 100_000  # at a time; few would make Envoy wait or connect again: RST_STREAM REFUSED_STREAM
    stream_window: int = 1 << 20  # data of a stream that waits for its handler: GOAWAY FLOW_CONTROL_ERROR
    connection_window: int = 16 << 20  # the same of all streams: GOAWAY FLOW_CONTROL_ERROR
    frame: int = 16_384  # payload of a frame, the least that HTTP/2 allows: GOAWAY FRAME_SIZE_ERROR
    header_block: int = 32 << 10  # headers of a stream, compressed: GOAWAY ENHANCE_YOUR_CALM
    continuations: int = 16  # frames in which they go on: GOAWAY ENHANCE_YOUR_CALM
    header_list: int = 64 << 10  # headers, decoded, and 32 for each: GOAWAY ENHANCE_YOUR_CALM
    # Rates; beyond each: GOAWAY ENHANCE_YOUR_CALM
    resets: int = 10_000  # streams that end before they were answered: reset or refused
    pings: int = 1_000
    settings: int = 20  # SETTINGS frames; each may touch every stream
    empty_data: int = 1_000  # DATA frames that carry nothing and end nothing
    idle_frames: int = 1_000  # frames that mean nothing here: PRIORITY, GOAWAY, unknown types
    # The driver's
    unread: int = 1 << 20  # answers that wait for a peer that does not read; beyond, nothing is read from it
    turn: int = 100  # events of a connection that are handled in a row; then others have their turn
    connections: int = 1_000  # at a time; one more is closed at once
