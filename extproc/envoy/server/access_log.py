"""Envoy's gRPC access log entries: outcomes of tries, which the gateway attachment cannot see.

Source: envoy/data/accesslog/v3/accesslog.proto.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from extproc.envoy.server.wire import parsed
from extproc.wire.pb import extproc_pb2 as pb
from extproc.words import contract
from extproc.words.tries import DownstreamEnd, Try, outcome_of
from extproc.words.urls import host_port

SERVICE = "envoy.service.accesslog.v3.AccessLogService"
METHOD = "StreamAccessLogs"


_CUT = "upstream_reset_after_response_started"  # a prefix; the reason follows in braces

_NOT_READ = "request_overall_timeout"  # the provider did not read the request

_MOST_ATTEMPTS = 1000  # far above the tries of any route
_EARLY = 0.05  # seconds, or a fiftieth of the limit: the clocks of the two listeners do not start together
_DOWNSTREAM_REASONS = {
    _CUT: "cut",  # the provider cut the answer off
    "request_headers_timeout": "request_timeout",
    "stream_idle_timeout": "idle_timeout",
    "max_request_bytes": "body_too_large",
    "overload": "overloaded",
}


def read(data: bytes, log_name: str) -> tuple[str, Sequence[Try | DownstreamEnd]]:
    """Entries of a message, and the log's name, which only a stream's first message has. Raises Malformed."""
    message = parsed(pb.StreamAccessLogsMessage, data)
    log_name = message.identifier.log_name or log_name
    entries = message.http_logs.log_entry
    if log_name.startswith(contract.TRY_PREFIX):
        provider = log_name.removeprefix(contract.TRY_PREFIX)
        return log_name, [_try(provider, entry) for entry in entries]
    ends = (_downstream_end(entry) for entry in entries)
    return log_name, [end for end in ends if end is not None]


def _try(provider: str, entry: pb.HTTPAccessLogEntry) -> Try:
    common, response = entry.common_properties, entry.response
    told = common.metadata.filter_metadata[contract.LOG_NAMESPACE].fields
    number = told["attempt"].number_value if "attempt" in told else 1
    attempt = int(number) if 1 <= number <= _MOST_ATTEMPTS else 1
    exchange_id = told[contract.LOG_ID].string_value if contract.LOG_ID in told else ""
    target = consumer = ""
    if "targets" in told:
        targets, consumer = contract.decode_targets(told["targets"].string_value)
        target = targets[min(attempt, len(targets)) - 1]
    seconds, outcome = _seconds(common.duration), _outcome(common.response_flags, response)
    # The public listener ends a late try. In the internal listener this looks like a client that left.
    timeout = told["timeout"].number_value / 1000 if "timeout" in told else math.inf
    late = seconds >= timeout - max(_EARLY, timeout / 50)
    if outcome == "client_left" and response.response_code.value == 0 and late:
        outcome = "timeout"
    content_type = response.response_headers.get("content-type", "")
    if outcome in ("ok", "client_left") and content_type.startswith("text/html"):
        outcome = "other"  # failed over as a proxy's page, see envoy_config.public
    first_byte = None
    if common.HasField("time_to_first_upstream_rx_byte"):
        first_byte = _seconds(common.time_to_first_upstream_rx_byte)
    return Try(
        exchange_id=exchange_id,
        provider=provider,
        target=target,
        attempt=attempt,
        status=response.response_code.value,
        outcome=outcome,
        seconds=seconds,
        first_byte=first_byte,
        retry_after=response.response_headers.get("retry-after", ""),
        request_bytes=entry.request.request_body_bytes,
        answer_bytes=response.response_body_bytes,
        streamed=content_type.startswith("text/event-stream"),
        consumer=consumer,
        start=0 if outcome == "ok" else common.start_time.ToNanoseconds(),
        endpoint=_address(common.upstream_remote_address.socket_address) if "endpoints" in told else "",
    )


def _address(address: pb.SocketAddress) -> str:
    return host_port(address.address, address.port_value) if address.address else ""


def _outcome(flags: pb.ResponseFlags, response: pb.HTTPResponseProperties) -> str:
    status = response.response_code.value
    answered = response.response_code_details == "via_upstream"
    left = flags.downstream_connection_termination or flags.downstream_remote_reset
    reset = flags.upstream_remote_reset or flags.upstream_connection_termination or flags.upstream_protocol_error
    cut = response.response_code_details.startswith(_CUT) or (answered and reset)
    if status < 400 and (cut or left):
        return "cut" if cut else "client_left"
    # An error's status counts even if its body is cut: the public listener fails over at its headers, and resets the
    # try.
    if answered or cut or left:
        return outcome_of(status)
    if flags.upstream_connection_failure:
        return "connect"
    if flags.upstream_request_timeout or flags.stream_idle_timeout or response.response_code_details == _NOT_READ:
        return "timeout"
    if flags.upstream_overflow:
        return "overflow"
    if flags.no_healthy_upstream:
        return "unhealthy"
    if reset:
        return "reset"
    return "credential" if status == 401 else "other"


def _downstream_end(entry: pb.HTTPAccessLogEntry) -> DownstreamEnd | None:
    flags, details = entry.common_properties.response_flags, entry.response.response_code_details
    about = entry.request.request_headers.get(contract.ID, ""), entry.response.response_code.value
    if flags.downstream_connection_termination or flags.downstream_remote_reset:
        return DownstreamEnd("client_left", *about)
    if details == "via_upstream" or details.startswith("extproc_"):
        return None
    found = next((reason for part, reason in _DOWNSTREAM_REASONS.items() if part in details), None)
    return DownstreamEnd(found or f"{entry.response.response_code.value // 100}xx", *about)


def _seconds(duration: Duration) -> float:
    return float(duration.seconds + duration.nanos / 1e9)
