"""EndpointSlices from a double of Kubernetes' API server: list, watch, resume, and a place that is gone."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from extproc.envoy.server.slices import Lines, NotInClusterError, Slices, follow_slices
from extproc.wire.outbound.pool import AnswerError


def endpoint(address, name="pod", **conditions):
    return {"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": name}}


def slice_of(name, version, *endpoints):
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "endpoints": list(endpoints) or None}


def listed(version, *slices):
    return json.dumps({"metadata": {"resourceVersion": str(version)}, "items": list(slices)}).encode()


def event(kind, item):
    return json.dumps({"type": kind, "object": item}).encode()


class ApiServer:
    """Answers each request with the next of `answers`: a list's bytes, the events of a watch, or a status."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []  # path, query and token of each request
        self.held = asyncio.Event()  # the last watch stays open until it is set

        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.held.set()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            url = urlsplit(lines[0].split()[1])
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            self.asked.append((url.path, {k: v[0] for k, v in parse_qs(url.query).items()}, headers["authorization"]))
            answer = self.answers.pop(0)
            if isinstance(answer, list):
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for line in answer:
                    for part in (line[:20], line[20:] + b"\n"):  # an event may come in pieces
                        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
                        await writer.drain()
                        await asyncio.sleep(0)
                if not self.answers:
                    await self.held.wait()
                writer.write(b"0\r\n\r\n")
            else:
                status, body = (answer, b"{}") if isinstance(answer, int) else (200, answer)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))


@pytest.fixture
def pod(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("a-token\n")
    (tmp_path / "namespace").write_text("gateway")
    monkeypatch.setenv("KUBERNETES_SERVICE_ACCOUNT", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_SCHEME", "http")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")

    def at(server):
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))

    return at


async def test_a_service_is_listed_watched_and_resumed_where_the_watch_ended(pod):
    found, done = [], asyncio.Event()

    def take(endpoints):
        found.append(endpoints)
        if len(found) == 4:
            done.set()

    first = slice_of("s1", 5, endpoint("10.0.0.1", "a", ready=True), endpoint("10.0.0.2", "b", ready=False))
    moved = slice_of("s1", 6, endpoint("10.0.0.1", "a", ready=False, serving=True, terminating=True))
    second = slice_of("s2", 7, endpoint("fd00::3", "c"))
    mark = {"metadata": {"resourceVersion": "9"}}
    watches = [event("MODIFIED", moved), event("ADDED", second), event("BOOKMARK", mark)], [event("DELETED", second)]
    async with ApiServer(listed(5, first), *watches) as server:
        pod(server)
        task = asyncio.create_task(follow_slices("models/vllm", 8000, take))
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
    assert found == [{"10.0.0.1:8000": "a"}, {}, {"[fd00::3]:8000": "c"}, {}]
    paths = {path for path, _, _ in server.asked}
    assert paths == {"/apis/discovery.k8s.io/v1/namespaces/models/endpointslices"}
    queries = [query for _, query, _ in server.asked]
    assert all(query["labelSelector"] == "kubernetes.io/service-name=vllm" for query in queries)
    assert [query.get("resourceVersion") for query in queries] == [None, "5", "9"]
    assert {token for *_, token in server.asked} == {"bearer a-token"}


@pytest.mark.parametrize("gone", [410, [event("ERROR", {"kind": "Status", "code": 410})]])
async def test_a_place_that_is_gone_ends_the_watch_so_that_the_caller_lists_again(pod, gone):
    found = []
    async with ApiServer(listed(5), gone, 500) as server:
        pod(server)
        await asyncio.wait_for(follow_slices("vllm", 80, found.append), 10)
    assert found == [{}]
    assert server.asked[0][0].endswith("/namespaces/gateway/endpointslices"), "the pod's own namespace"


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (403, NotInClusterError, "list and watch of endpointslices"),
        (500, AnswerError, "answers 500"),
        (b"[]", AnswerError, "not of EndpointSlices"),
    ],
)
async def test_an_api_server_that_refuses_is_told_in_a_sentence(pod, answer, error, text):
    async with ApiServer(answer) as server:
        pod(server)
        with pytest.raises(error, match=text):
            await asyncio.wait_for(follow_slices("vllm", 80, lambda _: None), 10)


async def test_outside_of_a_cluster_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NotInClusterError, match="KUBERNETES_SERVICE_HOST is not set"):
        await follow_slices("vllm", 80, lambda _: None)


def test_an_event_without_end_is_refused():
    lines = Lines(lambda _line: None)
    with pytest.raises(AnswerError):
        for _ in range(6):
            lines(b"x" * (1 << 20))


def test_slices_of_unknown_events_and_without_endpoints_change_nothing():
    slices = Slices(80)
    slices.replace(listed(1, slice_of("s", 1)))
    assert not slices.change(event("SOMETHING", slice_of("s", 2)))
    assert slices.endpoints() == {}
    assert slices.version == "2"
