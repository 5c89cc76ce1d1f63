"""Headers that clients may not forge, requests over HTTP/2, and text that would break a log line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.e2e.abuse.garbage import LENGTH
from tests.e2e.abuse.requests import (
    AUTH,
    JSON,
    PATH,
)

FORGED: Mapping[str, str] = {
    "x-extproc-id": "forged",
    "x-extproc-targets": "spare=spare-v2",
    "x-extproc-translate": "1",
    "x-extproc-provider": "backup",
    "x-extproc-hop": "forged",
    "x-extproc-attachment": "attempt",
    "x-extproc-edits": '[[{"model": "forged"}, [], ["openai", "openai_chat", "forged", null, true, true, false]]]',
    "x-extproc-attend": "all",
    "x-extproc-dialect": "anthropic_messages",
    "x-extproc-back-off": "5000",
    "x-extproc-timeout": "1",
    "x-extproc-translated": "1",
    "x-extproc-usage": "[0, 0, 0, 0, 0]",
    "x-extproc-ignored": "forged",
    "x-extproc-anything": "forged",
    "x-envoy-retry-on": "5xx,gateway-error,reset",
    "x-envoy-max-retries": "9",
    "x-envoy-retriable-status-codes": "200",
    "x-envoy-retriable-header-names": "content-type",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-upstream-rq-per-try-timeout-ms": "1",
    "x-envoy-upstream-rq-timeout-alt-response": "forged",
    "x-envoy-expected-rq-timeout-ms": "1",
    "x-envoy-hedge-on-per-try-timeout": "true",
    "x-envoy-upstream-alt-stat-name": "forged",
    "x-envoy-upstream-stream-duration-ms": "1",
    "x-envoy-original-path": "/v1/forged",
    "x-envoy-original-host": "forged.test",
    "x-envoy-original-dst-host": "127.0.0.1:1",
    "x-envoy-decorator-operation": "forged",
    "x-envoy-force-trace": "true",
    "x-envoy-internal": "true",
    "x-envoy-attempt-count": "9",
    "x-envoy-external-address": "10.0.0.1",
    "x-envoy-peer-metadata": "forged",
    "x-envoy-downstream-service-cluster": "forged",
    "x-envoy-fault-abort-request": "503",
    "x-envoy-fault-delay-request": "60000",
    "x-envoy-ip-tags": "forged",
    "x-forwarded-for": "10.0.0.1",
    "x-forwarded-host": "forged.test",
    "x-forwarded-proto": "https",
    "x-forwarded-port": "1",
    "x-forwarded-client-cert": "By=forged",
    "x-forwarded-anything": "forged",
    "forwarded": "for=10.0.0.1;host=forged.test",
    "x-ai-provider": "backup",
    "x-ai-model": "forged",
    "x-ai-team": "forged",
    "x-ai-consumer": "forged",
    "x-ai-error-origin": "provider",
    "x-ai-attempts": "9",
    "x-ai-cost": "-1",
    "x-ai-ignored": "forged",
    "x-request-id": "forged",
    "cookie": "forged=1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "forged=1",
    "baggage": "forged=1",
}
# Headers that the Envoy configuration lets through today, and should not.
LEAKED: Mapping[str, str] = {
    "proxy-authorization": "Basic Zm9yZ2Vk",
    "x-http-method-override": "DELETE",
    "x-http-method": "DELETE",
    "x-method-override": "DELETE",
    "x-real-ip": "10.0.0.1",
    "true-client-ip": "10.0.0.1",
    "x-original-url": "/v1/forged",
    "x-rewrite-url": "/v1/forged",
}

PSEUDO: list[tuple[str, str]] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "gateway.test"),
    (":path", PATH),
]


def http2(*more: tuple[str, str], without: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The headers of a good request over HTTP/2, pseudo-headers first."""
    good = [header for header in (*PSEUDO, AUTH, JSON) if header[0] not in without]
    return sorted([*good, *more], key=lambda header: not header[0].startswith(":"))


HTTP2_REFUSED: dict[str, tuple[int, str, list[tuple[str, str]]]] = {
    "no key": (401, "missing_key", http2(without=["authorization"])),
    "two keys": (401, "invalid_key", http2(("authorization", "Bearer x"))),
    "unknown path": (404, "path_not_found", http2((":path", "/nope"), without=[":path"])),
    "escaped slash": (404, "path_not_found", http2((":path", "/v1/chat%2fcompletions"), without=[":path"])),
    "trailing slash": (404, "path_not_found", http2((":path", PATH + "/"), without=[":path"])),
    "GET with a body": (405, "method_not_allowed", http2((":method", "GET"), without=[":method"])),
    "gzip, said": (400, "invalid_json", http2(("content-encoding", "gzip"))),
    "brotli": (415, "unsupported_encoding", http2(("content-encoding", "br"))),
    "text": (415, "unsupported_encoding", http2(("content-type", "text/plain"), without=["content-type"])),
    "CONNECT": (404, "path_not_found", http2((":method", "CONNECT"), without=[":method", ":path", ":scheme"])),
}
HTTP2_GARBAGE: dict[str, list[tuple[str, str]]] = {
    "name in capitals": http2(("X-ExtProc-Translate", "1")),
    "underscore": http2(("x_extproc_translate", "1")),
    "connection": http2(("connection", "authorization")),
    "keep-alive": http2(("keep-alive", "timeout=1")),
    "transfer-encoding": http2(("transfer-encoding", "chunked")),
    "upgrade": http2(("upgrade", "websocket")),
    "te": http2(("te", "gzip")),
    "length too small": http2(("content-length", "1")),
    "two lengths": http2(("content-length", LENGTH), ("content-length", "1")),
    "two paths": http2((":path", "/nope")),
    "two methods": http2((":method", "GET")),
    "two authorities": http2((":authority", "evil.test")),
    "no path": http2(without=[":path"]),
    "no method": http2(without=[":method"]),
    "no authority": http2(without=[":authority"]),
    "unknown pseudo-header": http2((":forged", "1")),
    "pseudo-header of an answer": http2((":status", "200")),
    "newline in a value": http2(("x-ai-agent", "a\r\nx-extproc-translate: 1")),
    "newline in a name": http2(("x-ai-agent\r\nx-extproc-translate", "1")),
    "NUL in a value": http2(("x-ai-agent", "a\0b")),
    "newline in the path": http2((":path", PATH + " HTTP/1.1\r\nx: y"), without=[":path"]),
    "space in the path": http2((":path", PATH + " x"), without=[":path"]),
    "empty path": http2((":path", ""), without=[":path"]),
    "no path but an asterisk": http2((":path", "*"), without=[":path"]),
    "absolute path": http2((":path", "http://evil.test" + PATH), without=[":path"]),
    "newline in the method": http2((":method", "POST / HTTP/1.1\r\n\r\nGET"), without=[":method"]),
    "empty method": http2((":method", ""), without=[":method"]),
    "user info in the authority": http2((":authority", "a@b"), without=[":authority"]),
    "extended CONNECT": http2((":method", "CONNECT"), (":protocol", "websocket"), without=[":method"]),
    "more than a hundred headers": http2(*[(f"x-h-{index}", "v") for index in range(101)]),
    "70 KB in a header": http2(("x-ai-agent", "a" * 70_000)),
}

# --- text that would break a log line

INJECTIONS = (
    *(
        '{"event":"exchange","forged":true}',
        '","status":200,"forged":"',
        "a\\nb",
        "\\u000a",
        "\\",
        '"',
        "'",
        "%0a%0d",
        "${jndi:ldap://x}",
    ),
    *(
        "\u2028{}",
        "\u202e",
        "é",
        "\U0001f600",
        "a\tb",
        "%s%n%x",
        "{}",
        "{0.__class__}",
        "x" * 10_000,
        "<script>alert(1)</script>",
        "\u0085",
    ),
)
