"""Keys that are wrong, misplaced, doubled or expired, or lack a grant for the requested model."""

from __future__ import annotations

from collections.abc import Iterator

from tests.e2e.abuse.requests import (
    CHAT,
    PATH,
    Refused,
    chat,
    chunked,
    http,
)
from tests.e2e.conftest import KEY
from tests.e2e.raw import Headers

NEAR = [KEY[:index] + ("x" if KEY[index] != "x" else "y") + KEY[index + 1 :] for index in range(len(KEY))]
WRONG_KEYS: list[str | bytes] = [
    *NEAR,
    KEY + "x",
    KEY[:-1],
    KEY[1:],
    KEY.upper(),
    KEY.title(),
    KEY + "\t" + KEY,
    f"{KEY} {KEY}",
    f"{KEY},{KEY}",
    f"{KEY}, Bearer {KEY}",
    f'"{KEY}"',
    f"'{KEY}'",
    f"<{KEY}>",
    f"{KEY};",
    f"{KEY}%00",
    f"{KEY}\\0",
    KEY.replace("-", "%2d"),
    KEY.replace("-", "_"),
    KEY.replace("-", "*"),
    KEY.replace("-", "?"),
    KEY.replace("-", "\u2010"),
    KEY.replace("e", "\u0435"),
    KEY.replace("e", "\u00e9"),
    KEY.replace("-", "-\u200b"),
    "\ufeff" + KEY,
    KEY.encode().replace(b"e", b"\xe9"),
    b"\xff\xfe\xfd",
    b"\xed\xa0\x80",
    "*",
    "%",
    "_",
    ".",
    "null",
    "undefined",
    "None",
    "true",
    "0",
    "[]",
    "{}",
    "' OR '1'='1",
    "' OR 1=1 --",
    '" OR ""="',
    "'; DROP TABLE keys; --",
    "x' UNION SELECT key FROM consumers --",
    "1; SELECT pg_sleep(10)",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "$(id)",
    "`id`",
    "; id",
    "| id",
    '{"$ne": null}',
    '{"$gt": ""}',
    '{"$where": "sleep(1000)"}',
    "*)(uid=*))(|(uid=*",
    "KEYS *",
    "x\\r\\nFLUSHALL\\r\\n",
    "GET consumer:demo",
    "../../etc/passwd",
    "file:///etc/passwd",
    "env:EXTPROC_DEMO_KEY",
    "$EXTPROC_DEMO_KEY",
    "hmac-sha256:" + "0" * 64,
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJkZW1vIn0.",
    "a" * 4096,
    "a" * 4097,
    KEY + " " * 10 + "a",
    KEY * 400,
    "a" * 50_000,
]
WRONG_AUTHORIZATIONS = [
    "",
    "Bearer",
    "Bearer ",
    "bearer",
    "BEARER",
    KEY,
    f"Bearer\t{KEY}",
    f"Bearer={KEY}",
    f"Bearer:{KEY}",
    f"Bearer: {KEY}",
    f"Bearer Bearer {KEY}",
    f"Basic {KEY}",
    "Basic c2stZ3ctZGVtbzo=",
    "Basic OnNrLWd3LWRlbW8=",
    f"Token {KEY}",
    f"ApiKey {KEY}",
    f"Negotiate {KEY}",
    f"AWS4-HMAC-SHA256 Credential={KEY}",
    f'Digest username="demo", response="{KEY}"',
    f"Bearer\u00a0{KEY}",
    f"Веarer {KEY}",
]


def keys() -> Iterator[Refused]:
    def refused(name: str, code: str, more: Headers, *, target: str = PATH) -> Refused:
        return Refused(f"key: {name}", 401, code, (http(more=more, without=["authorization"], target=target),))

    for key in WRONG_KEYS:
        text = key if isinstance(key, bytes) else key.encode()
        yield refused(f"bearer {text[:40]!r}", "invalid_key", [("authorization", b"Bearer " + text)])
    for key in (*NEAR[:3], "*", "' OR '1'='1", '{"$ne": null}', f"Bearer {KEY}", f"{KEY},{KEY}", "a" * 5000):
        yield refused(f"x-api-key {key[:40]!r}", "invalid_key", [("x-api-key", key)])
        yield refused(f"api-key {key[:40]!r}", "invalid_key", [("api-key", key)])
    for value in WRONG_AUTHORIZATIONS:
        yield refused(f"authorization {value[:40]!r}", "invalid_key", [("authorization", value)])
    for first, second in (("x", KEY), (KEY, "x"), (KEY, KEY), ("", KEY), (KEY, "")):
        both = [("authorization", f"Bearer {first}"), ("Authorization", f"Bearer {second}")]
        yield refused(f"two authorizations {first!r} {second!r}", "invalid_key", both)
        yield refused(
            f"two x-api-keys {first!r} {second!r}", "invalid_key", [("x-api-key", first), ("x-api-key", second)]
        )
        if first != second:
            mixed = [("authorization", f"Bearer {first}"), ("x-api-key", second)]
            yield refused(f"authorization {first!r} and x-api-key {second!r}", "invalid_key", mixed)
            for name in ("api-key", "x-goog-api-key"):
                mixed = [(name, first), ("x-api-key", second)]
                yield refused(f"{name} {first!r} and x-api-key {second!r}", "invalid_key", mixed)
    elsewhere = (
        "proxy-authorization",
        "x-auth-token",
        "cookie",
        "x-forwarded-authorization",
        "ocp-key",
    )
    yield refused("none", "missing_key", [])
    for name in elsewhere:
        yield refused(f"in {name}", "missing_key", [(name, f"Bearer {KEY}")])
    for name in ("access_token", "api_key", "api-key", "key", "x-api-key", "authorization", "token", "Bearer"):
        yield refused(f"in ?{name}=", "missing_key", [], target=f"{PATH}?{name}={KEY}")
    yield refused("in user info", "missing_key", [], target=f"http://x/v1/chat/completions?u={KEY}")
    for named in ("authorization", "Authorization", "close, authorization", "keep-alive, Authorization, te"):
        dropped = http(more=[("connection", named)])
        yield Refused(f"key: Connection: {named}", 401, "missing_key", (dropped,))
    trailer = chunked(
        CHAT, more=[("trailer", "authorization")], end=b"0\r\nauthorization: Bearer %s\r\n\r\n" % KEY.encode()
    )
    head = trailer[0].replace(b"authorization: Bearer " + KEY.encode() + b"\r\n", b"")
    yield Refused("key: in a trailer", 401, "missing_key", (head, *trailer[1:]))
    for path in ("/v1/models", "/v1/models/stub"):
        bare = http(None, method="GET", target=path, without=["authorization"])
        yield Refused(f"key: none for {path}", 401, "missing_key", (bare,), "GET")
    yield Refused("key: disabled", 401, "invalid_key", (_as("sk-gw-off"),))
    yield Refused("key: expired", 401, "expired_key", (_as("sk-gw-old"),))
    yield Refused("key: not granted", 403, "model_not_allowed", (_as("sk-gw-narrow", chat(model='"spare"')),))
    yield Refused(
        "key: not granted by wildcard", 403, "model_not_allowed", (_as("sk-gw-narrow", chat(model='"any/x"')),)
    )


def _as(key: str, body: bytes = CHAT) -> bytes:
    return http(body, without=["authorization"], more=[("authorization", f"Bearer {key}")])
