"""Paths, methods and upgrades that do not exist, and unusual spellings of those that do."""

from __future__ import annotations

from collections.abc import Iterator

from tests.e2e.abuse.requests import (
    AUTH,
    CHAT,
    PATH,
    WEBSOCKET,
    Refused,
    http,
)
from tests.e2e.raw import message

UNKNOWN_PATHS = (
    *(
        "/",
        "/v1",
        "/v1/",
        "/v2/chat/completions",
        "/chat/completions",
        "/completions",
        "/responses",
        "/messages",
    ),
    *(
        "/v1/conversations",
        "/v1/messages/other",
        "/v1/messages/count_tokens/",
        "/v1/messages/count-tokens",
        "/v1/messages%2fcount_tokens",
        "/v1/complete",
        "/v1/Messages",
        "/v1/responses/",
        "/v1/messages;x",
        "/v1/completions%2f",
    ),
    *(
        "/mcp",
        "/a2a",
    ),
    *(
        "/v1/fine_tuning/jobs",
        "/v1/assistants",
        "/v1/threads",
        "/v1/realtime",
        "/v1alpha/models/x:generateContent",
        "/api/chat",
    ),
    *(
        "/openai/deployments/stub/other",
        "/model/stub/invoke",
        "/metrics",
        "/healthz",
        "/readyz",
        "/exchanges",
    ),
    *(
        "/stats",
        "/config_dump",
        "/quitquitquit",
        "/server_info",
        "/requests",
        "/control",
        "/v1/control",
        "/.env",
        "/favicon.ico",
    ),
    *(
        PATH + tail
        for tail in ("/", "//", "/.", "/..", "/../..", "/x", ";", ";a=b", "%20", "%2f", "%2F", "%2f..", "%5c", ".json")
    ),
    *(
        PATH + tail
        for tail in (
            "%",
            "%zz",
            "%3f",
            "%3Fx",
            "%23",
            "%0d%0ax:%20y",
            "%0a",
            "%ff",
            "%c0%af",
            "%e2%80%8b",
            "*",
            "~",
            "\\",
        )
    ),
    *(
        "/v1/chat%2fcompletions",
        "/v1/chat%2Fcompletions",
        "/v1%2fchat/completions",
        "/%2fv1/chat/completions",
    ),
    *(
        "/v1/chat%5ccompletions",
        "/v1/..%2fv1/chat/completions",
        "/v1/%2e%2e%2fv1/chat/completions",
        "/v1/%252e%252e/chat/completions",
    ),
    *(
        "/v1/chat%252fcompletions",
        "/v1/chat;/completions",
        "/v1;a/chat/completions",
        "/V1/chat/completions",
    ),
    *(
        "/v1/Chat/Completions",
        "/v1/chat/COMPLETIONS",
        "/v1/chat/completion",
        "/v1/chat",
        "/v1/chat/",
        "/v1/chat./completions",
    ),
    *(
        "/v1/chat/completions/../x",
        "//evil.test/v1/chat/completions",
        "/x" + PATH,
        PATH * 2,
        PATH + "/" + "a" * 9_000,
        "/" + "a" * 50_000,
    ),
    *(
        "/v1/models%2fstub",
        "/v1%2fmodels",
        "/v1/models;x",
        "/v1/models.json",
        "/v1/modelsx",
        "/v1/models/",
        "/v1/models/any/",
    ),
    *("/v1/embeddings/", "/v1/embeddings%2f", "/v1/Embeddings", "/v1/embeddings;x"),
)
OTHER_PATHS = {  # answers to the body of a chat
    "/v1/responses/resp_1": (405, "method_not_allowed"),
    "/v1/responses/resp_1/cancel": (400, "invalid_request"),
    "/v1/responses/resp_1/input_items": (405, "method_not_allowed"),
    "/v1/responses/input_tokens": (400, "invalid_request"),
    "/v1/responses/compact": (400, "invalid_request"),
    "/v1/batches": (400, "invalid_request"),
    "/v1/files": (400, "invalid_request"),
    "/v1/images/generations": (400, "invalid_request"),
    "/v1/audio/speech": (400, "invalid_request"),
    "/v1/moderations": (400, "invalid_request"),
    "/v1/rerank": (400, "invalid_request"),
    "/v1/ocr": (400, "invalid_request"),
}
# The provider and the processor both see the path as Envoy normalised it.
SAME_PATHS = (
    *("//v1/chat/completions", "/v1//chat/completions", "///v1///chat///completions", "/./v1/chat/completions"),
    *(
        "/v1/./chat/./completions",
        "/v1/x/../chat/completions",
        "/../v1/chat/completions",
        "/../../../v1/chat/completions",
    ),
    *(
        "/v1/%2e%2e/v1/chat/completions",
        "/v1/%2E/chat/completions",
        "/%76%31/chat/completions",
        "/v1/%63hat/complet%69ons",
    ),
    *(
        "/v1\\chat\\completions",
        "/x\\..\\v1/chat/completions",
        "http://evil.test/v1/chat/completions",
    ),
    *(
        "http://127.0.0.1:1/v1/chat/completions",
        "http://a@evil.test/v1/chat/completions",
        "http://evil.test//v1/chat/completions",
    ),
)
MODEL_PATHS = {
    "any%2Fx": "any/x",
    "any%2fx": "any/x",
    "any/x": "any/x",
    "any%2fa%2fb": "any/a/b",
    "any%2Fa,b=c": "any/a,b=c",
    "any%2f%2525": "any/%25",
    "%73tub": "stub",
    "any/../stub": "stub",
    "/stub": "stub",
    "stub?api_key=x": "stub",
}
BAD_MODEL_PATHS = (
    *(
        "..%2fx",
        "%2e%2e%2fx",
        "%2E%2E%2Fx",
        ".%2e%2fx",
        "any%2f..",
        "any%2f%2e%2e",
        "any%2f..%2fstub",
        "any%2f..%2f..%2fv1",
        "any%2f.",
    ),
    *(
        "any%2f%2e%2fx",
        "any%2f%2fx",
        "%2fstub",
        "stub%2f",
        "any%2f",
        "%2f",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "any/x%2f..",
        "any%2f/x",
    ),
)
UNKNOWN_MODEL_PATHS = (
    *(
        "x",
        "STUB",
        "*",
        "any%2f*",
        "any%252fx",
        "any%5cx",
        "stub;x",
        "stub%20",
        "%20stub",
        "stub%0a",
        "any%2f%0d%0ax:%20y",
        "any%2f%ff",
    ),
    *(
        "any%2f%ed%a0%80",
        "any%2f%c3%bc",
        "stub%e2%80%8b",
        "__proto__",
        "{stub}",
        "%7bstub%7d",
        "a" * 257,
        "any%2f" + "a" * 253,
        "%zz",
        "%",
    ),
    *("any%2f%1b%5b31m", "any%2f%20", "a" * 9_000, "stub,spare", "'", "%22", "<script>"),
)
WRONG_METHODS = (
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "MKCOL",
    "LOCK",
    "SEARCH",
    "REPORT",
)
OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")


def paths() -> Iterator[Refused]:
    for path in UNKNOWN_PATHS:
        name, request = f"path: {path[:60]!r}", http(target=path)
        yield Refused(name, 404, "path_not_found", (request,))
    for path, (status, code) in OTHER_PATHS.items():
        yield Refused(f"path: {path!r}", status, code, (http(target=path),))
    for path in ("/", "/v1/chat/completions%2f", "/v1/responses/x/y/z", "/metrics", "/v1/models/..%2fx"):
        request = http(target=path, without=["authorization"])
        yield Refused(f"path: {path!r} without a key", 404, "path_not_found", (request,))
    for id in BAD_MODEL_PATHS:
        request = http(None, method="GET", target=f"/v1/models/{id}")
        yield Refused(f"path: model {id!r}", 404, "path_not_found", (request,), "GET")
    for id in UNKNOWN_MODEL_PATHS:
        request = http(None, method="GET", target=f"/v1/models/{id}")
        yield Refused(f"path: model {id[:60]!r}", 404, "model_not_found", (request,), "GET")
    for method in WRONG_METHODS:
        yield Refused(f"method: {method}", 405, "method_not_allowed", (http(method=method),), method)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in ("/v1/models", "/v1/models/stub"):
            request = http(None, method=method, target=path)
            yield Refused(f"method: {method} {path}", 405, "method_not_allowed", (request,), method)
    for name in OVERRIDES:
        request = http(method="GET", more=[(name, "POST")])
        yield Refused(f"method: GET with {name}", 405, "method_not_allowed", (request,), "GET")
    asked = http(method="GET", target=PATH + "?_method=POST")
    yield Refused("method: GET with ?_method=POST", 405, "method_not_allowed", (asked,), "GET")
    for name, more in (
        ("websocket", WEBSOCKET),
        ("TLS", [("connection", "upgrade"), ("upgrade", "TLS/1.0")]),
        ("websocket, mixed", [("connection", "Upgrade, keep-alive"), ("upgrade", "h2c, websocket")]),
    ):
        for method, path, body in (("POST", PATH, CHAT), ("GET", PATH, None), ("GET", "/v1/models", None)):
            request = http(body, method=method, target=path, more=more)
            yield Refused(f"upgrade: {name} {method} {path}", 403, "invalid_request", (request,), method)
    tunnel = message("CONNECT", "evil.test:443", [("host", "evil.test:443"), AUTH])
    yield Refused("method: CONNECT", 404, "path_not_found", (tunnel,), "CONNECT")
