"""Envoy's own answers (404, 413, 503, 504 …) in OpenAI's shape, or JSON-RPC for MCP, with the gateway's fixed codes.

The first mapper that matches wins. Envoy's own reason (RESPONSE_CODE_DETAILS) chooses the mapper and is never shown. If
the gateway attachment has seen the request, it rewrites the answer in the shape of the client's API.
"""

from __future__ import annotations

from typing import Any

from envoy_data_plane.envoy.config.accesslog import v3 as accesslogv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcmv3
from envoy_data_plane.google.protobuf import Struct

from extproc.envoy.envoy_config.typed import cel, set_header, with_flags
from extproc.wire.framing import rpc
from extproc.words import contract
from extproc.words.errors import (
    BODY_TOO_LARGE,
    GATEWAY_RESTARTING,
    INVALID_REQUEST,
    MCP_SERVER_TIMEOUT,
    MCP_SERVER_UNAVAILABLE,
    NO_PROVIDER_AVAILABLE,
    OVERLOADED,
    PATH_NOT_FOUND,
    POOL_FULL,
    PROVIDER_BAD_ANSWER,
    PROVIDER_CREDENTIAL_REJECTED,
    PROVIDER_TIMEOUT,
    Kind,
)
from extproc.words.values import show_size

ORIGIN = "x-ai-error-origin"
INTERNAL_ERROR = Kind(500, "api_error", "internal_error")

NO_CREDENTIAL = "response.code_details == 'failed_to_inject_credential'"  # the injector has no secret
NOT_READ = "request_overall_timeout"  # Envoy could not read the whole request in time
# UNAVAILABLE (14): no connection to the processor. 13: its connection broke in the middle of an exchange.
_AWAY = "response.code_details.matches('^ext_proc_error_gRPC_error_(14|13.*connection_termination)')"
_AGAIN = "Try again; if it persists, give the operator of this gateway the x-request-id of this answer."


_MCP = "request.url_path.startsWith('/mcp/')"
_OF_SERVERS = {
    NO_PROVIDER_AVAILABLE: (MCP_SERVER_UNAVAILABLE, "No server can answer now: try again in a moment."),
    PROVIDER_TIMEOUT: (MCP_SERVER_TIMEOUT, "The server did not answer in time; try again later."),
}
"""Codes and messages of the same failures of MCP servers."""


def public(request_body: int, *, mcp: bool = False) -> hcmv3.LocalReplyConfig:
    """Replies of the public listener, for requests that never reached a provider or took too long there. With `mcp`,
    replies to MCP clients are JSON-RPC without an id, because Envoy has not read the message.
    """
    too_large = f"The body is larger than {show_size(request_body)}: send less."
    timeout = "No provider answered in time: try again, ask for less, or stream the answer."
    nobody = "No provider can serve this request now: try again in a moment."
    busy = "The gateway is busy: try again in a moment."
    away = "The gateway restarts: try again in a moment."
    headers = "The request has too many headers: send less than 80."
    malformed = "The gateway does not accept this HTTP request: check its method, path, headers and length."
    answers = (
        (cel("response.code_details.startsWith('ext_proc') && response.code == 504"), OVERLOADED, busy),
        (cel(_AWAY), GATEWAY_RESTARTING, away),
        (cel("response.code_details.startsWith('ext_proc')"), INTERNAL_ERROR, f"Internal error. {_AGAIN}"),
        (cel("response.code_details == 'header_mutation_result_exceeds_limit'"), INVALID_REQUEST, headers),
        (cel("response.code == 404"), PATH_NOT_FOUND, "The gateway does not serve this path."),
        (cel("response.code == 413"), BODY_TOO_LARGE, too_large),
        (with_flags("UO", "OM", "DO"), OVERLOADED, busy),
        (cel("response.code == 504"), PROVIDER_TIMEOUT, timeout),
        (cel("response.code == 503 || response.code == 502"), NO_PROVIDER_AVAILABLE, nobody),
        (cel("response.code == 501"), INVALID_REQUEST, malformed),
        (cel("response.code >= 500"), INTERNAL_ERROR, f"Internal error. {_AGAIN}"),
    )
    mappers = [_own_refusals()]
    for when, kind, message in answers:
        mappers += [_mcp_reply(when, kind, message)] if mcp else []
        mappers.append(_reply(when, kind, message))
    last = cel("response.code >= 400"), INVALID_REQUEST, malformed
    mappers += [_mcp_reply(*last, keep_status=True)] if mcp else []
    return hcmv3.LocalReplyConfig(mappers=[*mappers, _reply(*last, keep_status=True)])


def hop(provider: str, most: int, *, tokens: bool = False, picker: bool = False) -> hcmv3.LocalReplyConfig:
    """Replies of a try, in a provider's place. `contract.HOP` has the reason; `most` is `max_requests`. With `picker`
    an external picker may refuse: 503 without an endpoint, 429 under load.
    """
    down = f"Provider {provider} cannot be reached: try again, or use another model."
    busy = f"Provider {provider} has {most} requests in flight, its max_requests: try again in a moment."
    nameless = (
        f"Provider {provider} has no host to ask, because its name does not resolve: try again, or use another model."
    )
    slow = f"Provider {provider} did not answer in time: try again, ask for less, or stream the answer."
    keyless = f"The gateway has no key for provider {provider}: the operator must set its api_key."
    if tokens:
        keyless = f"The gateway has no token for provider {provider} now: try again in a moment, or use another model."
    broken = f"Provider {provider} sent an answer that is not HTTP: try again, or use another model."
    full = f"Provider {provider} has no room for this request now: try again in a moment, or use another model."
    refused = ((429, POOL_FULL, full), (503, NO_PROVIDER_AVAILABLE, down)) if picker else ()
    return hcmv3.LocalReplyConfig(
        mappers=[
            _own_refusals(),
            _reply(cel(NO_CREDENTIAL), PROVIDER_CREDENTIAL_REJECTED, keyless, "credential"),
            _reply(with_flags("UF"), NO_PROVIDER_AVAILABLE, down, "connect"),
            _reply(with_flags("UT", "SI", "UMSDR"), PROVIDER_TIMEOUT, slow, "timeout"),
            _reply(cel(f"response.code_details == '{NOT_READ}'"), PROVIDER_TIMEOUT, slow, "timeout"),
            _reply(with_flags("UO"), NO_PROVIDER_AVAILABLE, busy, "overflow"),
            _reply(with_flags("UH", "NC"), NO_PROVIDER_AVAILABLE, nameless, "unhealthy"),
            _reply(with_flags("UPE"), PROVIDER_BAD_ANSWER, broken, "other"),
            _reply(with_flags("UC", "UR", "LR"), NO_PROVIDER_AVAILABLE, down, "reset"),
            *[_reply(cel(f"response.code == {code}"), kind, message, "other") for code, kind, message in refused],
            _reply(cel("response.code >= 400"), INTERNAL_ERROR, f"Internal error. {_AGAIN}", "other"),
        ]
    )


def _own_refusals() -> hcmv3.ResponseMapper:
    """Keeps the processor's own refusals unchanged."""
    body = corev3.SubstitutionFormatString(text_format_source=corev3.DataSource(inline_string="%LOCAL_REPLY_BODY%"))
    return hcmv3.ResponseMapper(filter=cel("response.code_details.startsWith('extproc_')"), body_format_override=body)


def _reply(
    when: accesslogv3.AccessLogFilter, kind: Kind, message: str, hop: str | None = None, *, keep_status: bool = False
) -> hcmv3.ResponseMapper:
    return _mapper(when, kind, error(kind, message.replace("%", "%%")), hop, keep_status=keep_status)


def error(kind: Kind, message: str) -> dict[str, Any]:
    """The body of a refusal, in OpenAI's shape."""
    return {"error": {"message": message, "type": kind.type, "param": None, "code": kind.code}}


def _mcp_reply(
    when: accesslogv3.AccessLogFilter, kind: Kind, message: str, *, keep_status: bool = False
) -> hcmv3.ResponseMapper:
    from extproc.tools.mcp.refusals import rpc_code  # noqa: PLC0415 - most gateways serve models alone

    kind, message = _OF_SERVERS.get(kind, (kind, message))
    when = accesslogv3.AccessLogFilter(and_filter=accesslogv3.AndFilter(filters=[cel(_MCP), when]))
    body = rpc.error(None, rpc_code(kind), message.replace("%", "%%"), {"code": kind.code})
    return _mapper(when, kind, body, keep_status=keep_status)


def _mapper(
    when: accesslogv3.AccessLogFilter, kind: Kind, body: dict[str, Any], hop: str | None = None, *, keep_status: bool
) -> hcmv3.ResponseMapper:
    said = {contract.HOP: hop, f"{contract.HOP}-{hop}": "1"} if hop else {} if keep_status else kind.advice
    headers = [set_header(name, value) for name, value in ({ORIGIN: "gateway"} | dict(said)).items()]
    return hcmv3.ResponseMapper(
        filter=when,
        status_code=None if keep_status else kind.status,
        headers_to_add=headers,
        body_format_override=corev3.SubstitutionFormatString(json_format=Struct.from_dict(body)),
    )
