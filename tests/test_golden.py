"""Every client's API to every provider's and back, in files that people can read.

    golden/requests/<client>/<case>.json             what a client sends
    golden/requests/<client>/<case>/<provider>.json  what the provider is sent: its path, its body and what was left out;
                                                     or why that provider is skipped, or the request refused
    golden/answers/<provider>/<case>.json            what a provider answers, `error_429` with that status; streamed as
                                                     .sse or, where the stream is Amazon's, as .events.json, a list of
                                                     [headers, payload]
    golden/answers/<provider>/<case>/<client>.json   what the client gets, or .sse

`GOLDEN_UPDATE=1 pytest tests/test_golden.py` writes what is expected anew. Read every change of it.
"""

import itertools
import json
import os
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from extproc.contract import Service
from extproc.dialects import NATIVE, Place, dialects
from extproc.errors import Refusal
from extproc.framing.aws_eventstream import encode
from extproc.framing.sse import SSE
from extproc.translate import Translation

ROOT = Path(__file__).parent / "golden"
UPDATE = os.environ.get("GOLDEN_UPDATE") == "1"

CHAT = {name: dialect for name, dialect in dialects().items() if dialect.family == "chat"}
CLIENTS = {name: dialect for name, dialect in CHAT.items() if dialect.translates_from}
SERVICES = {
    service.dialect: service
    for service in (
        Service("openai", "openai_chat", "gpt-5.2", 65536),
        Service("openai", "openai_responses", "gpt-5.2", 65536),
        Service("anthropic", "anthropic_messages", "claude-opus-4-6", 65536),
        Service("gcp_gemini", "gemini_generate_content", "gemini-3.8-flash", 65536),
        Service("aws_bedrock", "aws_converse", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 65536),
        Service("cohere", "cohere_chat", "command-a-reasoning-08-2025", 32768),
    )
}
STREAMS = (".sse", ".events.json")


def files(directory):
    """Its cases by their names."""
    return {path.name.partition(".")[0]: path for path in sorted(directory.iterdir()) if path.is_file()}


REQUESTS = [
    (client, case, provider)
    for client in CLIENTS
    for case in files(ROOT / "requests" / client)
    for provider in SERVICES
    if provider != client
]
ANSWERS = [
    (provider, case, path, client)
    for provider in SERVICES
    for case, path in files(ROOT / "answers" / provider).items()
    for client in CLIENTS
    if provider != client
]
PLAIN = [row for row in ANSWERS if not row[2].name.endswith(STREAMS)]
STREAMED = [row for row in ANSWERS if row[2].name.endswith(STREAMS)]


def each(names, rows):
    ids = ["-".join(part for part in row if isinstance(part, str)) for row in rows]
    return pytest.mark.parametrize(names, rows, ids=ids)


@pytest.fixture(autouse=True)
def pinned(monkeypatch):
    """Begins to count ids anew; the time stands still."""
    monkeypatch.setattr("time.time", lambda: 1767323045.0)

    def begin():
        numbers = itertools.count(1)
        monkeypatch.setattr("os.urandom", lambda size: next(numbers).to_bytes(size, "big"))

    begin()
    return begin


def check(path, made):
    """That the file holds `made`: bytes, or a value as JSON."""
    if UPDATE:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            made if isinstance(made, bytes) else (json.dumps(made, indent=2, ensure_ascii=False) + "\n").encode()
        )
    found = path.read_bytes()
    assert made == (found if isinstance(made, bytes) else json.loads(found))


def test_every_dialect_is_here():
    assert set(SERVICES) == {name for name, dialect in CHAT.items() if dialect.translates_into}


def test_nothing_is_left_over():
    expected = {f"requests/{client}/{case}/{provider}.json" for client, case, provider in REQUESTS}
    for provider, case, path, client in ANSWERS:
        expected.add(f"answers/{provider}/{case}/{client}{'.sse' if path.name.endswith(STREAMS) else '.json'}")
    assert expected == {str(path.relative_to(ROOT)) for path in ROOT.glob("*/*/*/*")}


# --- requests


def asked(client, case):
    return json.loads((ROOT / "requests" / client / f"{case}.json").read_bytes())


@each(("client", "case", "provider"), REQUESTS)
def test_requests(client, case, provider):
    body = asked(client, case)
    before = json.dumps(body)
    translation = Translation(CLIENTS[client], SERVICES[provider])
    unsaid = [need for need in CLIENTS[client].read(body).needs if need in translation.dialect.lacks | NATIVE]
    if unsaid:
        made = {"skipped": unsaid}  # Select never sends it there
    else:
        try:
            path, sent = translation.request(body)
            made = {"path": path, "body": json.loads(sent), "ignored": translation.ignored}
        except Refusal as refusal:
            made = {"refused": {"code": refusal.kind.code, "message": refusal.message}}
    assert json.dumps(body) == before  # the next try begins with it again
    check(ROOT / "requests" / client / case / f"{provider}.json", made)


# --- answers


def answered(path):
    if path.name.endswith(".events.json"):
        return b"".join(
            encode(headers, json.dumps(payload).encode()) for headers, payload in json.loads(path.read_bytes())
        )
    return path.read_bytes()


@each(("provider", "case", "path", "client"), PLAIN)
def test_plain_answers(provider, case, path, client):
    translation = Translation(CLIENTS[client], SERVICES[provider])
    _, _, status = case.partition("error_")
    body = answered(path)
    made = translation.problem(int(status), body) if status else translation.answer(body)[0]
    check(path.parent / case / f"{client}.json", json.loads(made))


def translated(provider, client, *pieces):
    translation = Translation(CLIENTS[client], SERVICES[provider])
    stream = translation.stream(translation.dialect.stream_type, event_limit=1 << 20, body_limit=1 << 20)
    return b"".join(stream.feed(piece, end=False) for piece in pieces) + stream.feed(b"", end=True)


@each(("provider", "case", "path", "client"), STREAMED)
def test_streamed_answers(provider, case, path, client, pinned):
    whole = answered(path)
    made = translated(provider, client, whole)
    check(path.parent / case / f"{client}.sse", made)
    pinned()
    assert made == translated(provider, client, *(whole[at : at + 1] for at in range(len(whole))))
    for place in range(1, len(whole)):
        pinned()
        assert made == translated(provider, client, whole[:place], whole[place:])
