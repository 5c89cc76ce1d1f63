"""A double without its sockets: the provider of the mock, with its own APIs, credentials and further faults."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from extproc.upstream.mock.endpoints import Headers, Json, MockAnswer, MockEndpoint, Options
from extproc.upstream.mock.faults import Faults as SharedFaults
from extproc.upstream.mock.provider import JSON, Logged, Mock, Reply
from tests.doubles import anthropic_batches, files, forms, gemini_batches, gemini_files, responses_stored
from tests.doubles.credentials import Asked, Keys
from tests.doubles.faults import NONE, Faults, odd, padded, parse
from tests.doubles.routes import OPENAI, find

HTML = ((b"content-type", b"text/html; charset=utf-8"),)
SOUND = ((b"content-type", b"audio/mpeg"),)
FORGED = ((b"x-extproc-origin", b"hop"), (b"x-ai-provider", b"forged"), (b"x-envoy-overloaded", b"true"))
GARBAGE = b"<!doctype html><html><body><h1>It works!</h1></body></html>\n"
BAD_JSON = b'{"id":"chatcmpl-mock","object":"chat.completion","choices":[{"index":0,"message":{"role":"assi'
AWS_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class Double(Mock):
    """One provider that speaks every API, as strictly as the real ones."""

    none = NONE
    parse = staticmethod(parse)
    speaks = "the paths in tests/doubles/routes.py"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        found = {name: os.environ[name] for name in AWS_SECRETS if os.environ.get(name)}
        self._keys = Keys(options.api_key, found if "AWS_SECRET_ACCESS_KEY" in found else {})

    def _find(self, path: str) -> tuple[MockEndpoint | None, str]:
        found, model = find(path)
        return found and MockEndpoint(found.dialect, found.answer, found.error), model

    def _document(self, _seen: Logged, body: bytes, model: str) -> Json:
        if gemini_files.is_part(_seen.path):
            return {"part": body, "model": model}
        form = forms.decoded(_seen.headers, body)
        return super()._document(_seen, body, model) if form is None else form

    def _listing(self, method: str, path: str, *, known: bool) -> Json:
        found = responses_stored.call(self._name, method, path)
        for kept in (files, anthropic_batches, gemini_batches, gemini_files):
            found = kept.call(self._name, method, path) if found is None else found
        return super()._listing(method, path, known=known) if found is None else found

    def _admit(self, seen: Logged, body: bytes) -> None:
        path, _, query = seen.path.partition("?")
        endpoint, _ = find(path)
        asked = Asked(seen.method, path, query, seen.headers, body)
        (endpoint.api if endpoint else OPENAI).admit(self._keys, asked)

    def _play(self, answer: MockAnswer, seen: Logged, faults: SharedFaults) -> Reply:
        if answer.events is not None and odd(faults).gzip:
            answer = answer._replace(events=_zipped(answer.events))
        return super()._play(answer, seen, faults)

    def _written(self, document: Any, faults: SharedFaults) -> tuple[Headers, bytes]:
        if isinstance(document, bytes):
            return SOUND, document
        if not isinstance(faults, Faults):
            return JSON, msgspec.json.encode(document)
        body = GARBAGE if faults.garbage else BAD_JSON if faults.badjson else msgspec.json.encode(document)
        if faults.size and not (faults.garbage or faults.badjson):
            body = padded(body, faults.size)
        return HTML if faults.garbage else JSON, gzip.compress(body, mtime=0) if faults.gzip else body

    def _headers(self, faults: SharedFaults, first: Headers) -> list[tuple[bytes, bytes]]:
        headers = super()._headers(faults, first)
        if not isinstance(faults, Faults):
            return headers
        if faults.gzip:
            headers.append((b"content-encoding", b"gzip"))
        if faults.forge:
            headers += FORGED
        headers += [(b"x-mock-extra-%d" % index, b"%d" % index) for index in range(faults.headers)]
        return headers


def _zipped(events: Iterator[bytes]) -> Iterator[bytes]:
    """The events, each compressed and flushed, so that each can be read at once. The last ends the gzip stream."""
    compressor = zlib.compressobj(wbits=31)
    held = next(events, b"")
    for event in events:
        yield compressor.compress(held) + compressor.flush(zlib.Z_SYNC_FLUSH)
        held = event
    yield compressor.compress(held) + compressor.flush()
