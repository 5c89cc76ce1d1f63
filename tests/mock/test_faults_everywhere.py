"""Every fault in every API, set by the suffix of the model's name and by the server's own fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.doubles.routes import find

TEXT = "hello there"
MESSAGES = [{"role": "user", "content": TEXT}]
CONVERSE = {"messages": [{"role": "user", "content": [{"text": TEXT}]}]}
GEMINI = {"contents": [{"parts": [{"text": TEXT}]}]}
BEDROCK = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": MESSAGES}


@dataclass
class Way:
    """One API. `{}` in a path stands for the model, which otherwise is in the body."""

    plain: str
    stream: str
    body: dict[str, Any]

    def asked(self, model: str, *, stream: bool) -> tuple[str, dict[str, Any]]:
        path = self.stream if stream else self.plain
        if "{}" in path:
            return path.format(model.replace("+", "%2B").replace("=", "%3D")), self.body
        return path, self.body | {"model": model} | ({"stream": True} if stream else {})


WAYS = {
    "openai": Way("/v1/chat/completions", "/v1/chat/completions", {"messages": MESSAGES}),
    "responses": Way("/v1/responses", "/v1/responses", {"input": TEXT}),
    "anthropic": Way("/v1/messages", "/v1/messages", {"max_tokens": 9, "messages": MESSAGES}),
    "gemini": Way("/v1beta/models/{}:generateContent", "/v1beta/models/{}:streamGenerateContent?alt=sse", GEMINI),
    "converse": Way("/model/{}/converse", "/model/{}/converse-stream", CONVERSE),
    "invoke": Way("/model/{}/invoke", "/model/{}/invoke-with-response-stream", BEDROCK),
    "cohere": Way("/v2/chat", "/v2/chat", {"messages": MESSAGES}),
}

each_way = pytest.mark.parametrize("name", WAYS)


@pytest.fixture
def way(name):
    found = WAYS[name]
    if find(found.plain.format("m"))[0] is None:
        pytest.skip("is not spoken")
    return found


@pytest.fixture
def send(mock):
    async def send(way, fault="", *, stream=False):
        path, body = way.asked("m" + fault, stream=stream)
        return await mock.client.post(path, json=body, headers={"anthropic-version": "2023-06-01"})

    return send


@each_way
async def test_faults_of_plain_answers_work_in_every_api(way, send):
    plain = await send(way)
    assert plain.status_code == 200
    assert "You said: hello there" in plain.text
    failed = await send(way, "+status=429+retry_after=7")
    assert (failed.status_code, failed.headers["retry-after"]) == (429, "7")
    assert "status=429" in failed.text
    assert (await send(way, "+garbage")).headers["content-type"].startswith("text/html")
    with pytest.raises(ValueError):
        (await send(way, "+badjson")).json()
    padded = await send(way, "+size=64KiB+gzip")
    assert (len(padded.content), padded.headers["content-encoding"]) == (65536, "gzip")
    assert padded.json().keys() - plain.json().keys() == {"padding"}
    more = await send(way, "+headers=9+forge")
    assert (more.headers["x-mock-extra-8"], more.headers["x-ai-provider"]) == ("8", "forged")
    unknown = await send(way, "+odd")
    assert (unknown.status_code, "unknown fault" in unknown.text) == (400, True)
    assert [(await send(way, "+status=503+first=1")).status_code for _ in range(2)] == [503, 200]
    for fault in ("+cut=0", "+reset", "+reset=1"):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await send(way, fault)


@each_way
@pytest.mark.parametrize("kind", ["negative", "string", "float", "huge", "none", "early"])
async def test_false_usage_works_in_every_api(way, send, kind):
    honest, told = (await send(way)).json(), (await send(way, "+usage=" + kind)).json()
    changed = sorted(key for key in honest | told if honest.get(key) != told.get(key))
    if kind != "early":
        assert {"usage", "usageMetadata"} & {*changed}
    assert (await send(way, "+usage=" + kind, stream=True)).status_code == 200


@each_way
async def test_faults_of_streams_work_in_every_api(way, send, mock):
    async def count(fault=""):
        assert (await send(way, fault, stream=True)).status_code == 200
        return (await mock.seen())["events"]

    usual = await count()
    assert usual > 4
    zipped = await send(way, "+gzip+sse=split", stream=True)
    assert (zipped.headers["content-encoding"], (await mock.seen())["events"]) == ("gzip", usual)
    assert await count("+sse=nodone") < usual < await count("+sse=twodone")
    assert await count("+words=0") < usual
    broken = (await send(way, "+errorevent=2", stream=True)).content
    assert b"errorevent" in broken
    assert (await mock.seen())["events"] == 3
    assert await count("+corrupt=1") == usual
    for fault in ("+cut=2", "+reset=2"):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await send(way, fault, stream=True)
        assert (await mock.seen())["events"] == 2


@each_way
async def test_the_servers_fault_applies_to_every_api(way, send, mock):
    await mock.client.put("/control", json={"fault": "status=503+every=2"})
    assert [(await send(way)).status_code for _ in range(2)] == [200, 503]
    await mock.client.request("DELETE", "/control")
    assert (await send(way)).status_code == 200


@each_way
async def test_a_body_that_is_not_json_is_refused_in_the_apis_shape(way, mock, name):
    path = way.plain.format("m")
    for content in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        answer = await mock.client.post(path, content=content)
        assert answer.status_code == 400
        assert {"openai": "error", "responses": "error", "anthropic": "type", "gemini": "error"}.get(
            name, "message"
        ) in answer.json()
    assert (await mock.client.get(path)).status_code == 405
