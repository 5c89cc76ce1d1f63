"""Content types, encodings and sizes of bodies that are refused."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from random import Random

from tests.e2e.abuse.requests import (
    BODY_LIMIT,
    CHAT,
    PATH,
    Refused,
    chat,
    chunked,
    http,
    padded,
)

OTHER_TYPES = (
    *(
        "",
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/json, text/plain",
        "application/vnd.api+json",
        "*/*",
        "json",
    ),
    *(
        "application/x-ndjson",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ),
    *(
        "application/json+x",
        "application/json5",
        "application /json",
        "text/html;application/json",
        "application/javascript",
    ),
    *("application/json; charset=utf-7", "application/json;charset=UTF-16", "application/json; charset=latin1"),
    *(
        "application/json; charset = utf-16",
        "application/json; charset=utf-8; charset=utf-16",
        'application/json; charset="utf-16"',
    ),
    *(
        "application/json; x=charset=utf-8; charset=utf-16",
        "application/json; charset=",
        "application/json; charset",
        "application/xml",
    ),
    *(
        "application/json; charset=\tutf-16",
        "application/json; CHARSET=UTF-32",
        "application/json; charset*=utf-16''x",
        "a/b" * 3_000,
    ),
)
OTHER_ENCODINGS = (
    *(
        "br",
        "deflate",
        "x-gzip",
        "compress",
        "identity, gzip",
        "identity,identity",
    ),
    *(
        "aws-chunked",
        "none",
        "utf-8",
        "*",
        "gzip;q=0",
        "identity;q=1",
        "unknown",
        "exi",
        "dcb",
        "gzip\tbr",
        "g" * 3_000,
    ),
)


def payloads() -> Iterator[Refused]:
    for value in OTHER_TYPES:
        request = http(more=[("content-type", value)], without=["content-type"])
        yield Refused(f"content-type: {value[:60]!r}", 415, "unsupported_encoding", (request,))
    both = http(more=[("content-type", "text/plain")])
    yield Refused("content-type: two", 415, "unsupported_encoding", (both,))
    for value in OTHER_ENCODINGS:
        request = http(more=[("content-encoding", value)])
        yield Refused(f"content-encoding: {value[:60]!r}", 415, "unsupported_encoding", (request,))
    noise = chat('"x":"' + Random(1).randbytes(BODY_LIMIT).hex() + '"')
    for name, status, code, compressed, encoding in (
        ("deflate", 415, "unsupported_encoding", zlib.compress(CHAT), "deflate"),
        ("gzip that is none", 400, "invalid_json", CHAT, "gzip"),
        ("GZIP that is none", 400, "invalid_json", CHAT, "GZIP"),
        ("gzip that ends early", 400, "invalid_json", gzip.compress(CHAT)[:-20], "gzip"),
        ("gzip of 16 MiB of zeros", 413, "body_too_large", gzip.compress(bytes(1 << 24)), "gzip"),
        ("gzip of gzip", 400, "invalid_json", gzip.compress(gzip.compress(CHAT)), "gzip"),
        (
            "gzip of a body too large",
            413,
            "body_too_large",
            gzip.compress(noise),
            "gzip",
        ),
        ("zstd that is none", 400, "invalid_json", CHAT, "zstd"),
    ):
        yield Refused(name, status, code, (http(compressed, more=[("content-encoding", encoding)]),))
    twice = http(more=[("content-encoding", "identity"), ("content-encoding", "br")])
    yield Refused("content-encoding: two", 415, "unsupported_encoding", (twice,))

    large = padded(BODY_LIMIT + 1)
    for name, pieces in (
        ("one byte too many", (http(large),)),
        ("one byte too many, chunked", chunked(large)),
        ("one byte too many, without a key", (http(large, without=["authorization"]),)),
        ("2 MiB in chunks of 64 KiB", chunked(*[b"[" * (64 << 10)] * 32)),
        ("1 GiB, declared", (http(None, more=[("content-length", str(1 << 30))]),)),
        ("8 EiB, declared", (http(None, more=[("content-length", str((1 << 63) - 1))]),)),
        (
            "1 GiB, declared, expecting 100",
            (http(None, more=[("content-length", str(1 << 30)), ("expect", "100-continue")]),),
        ),
        ("to a path nobody serves", (http(large, target="/nope"),)),
        ("to embeddings", (http(large, target="/v1/embeddings"),)),
        ("to the list of models", (http(large, target="/v1/models"),)),
    ):
        yield Refused(f"body: {name}", 413, "body_too_large", pieces)
    for name, pieces in (
        ("none", (http(None),)),
        ("none, length 0", (http(b""),)),
        ("none, chunked", chunked()),
        ("none, expecting 100", (http(None, more=[("content-length", "0"), ("expect", "100-continue")]),)),
        ("a chunk longer than it says", (*chunked()[:1], b"5\r\n" + CHAT + b"\r\n0\r\n\r\n")),
        ("none, but trailers", chunked(end=b"0\r\nx-body: " + b"a" * 100 + b"\r\n\r\n")),
        ("only in the query", (http(None, target=f"{PATH}?model=stub&messages=Hi"),)),
    ):
        yield Refused(f"body: {name}", 400, "invalid_json", pieces)
