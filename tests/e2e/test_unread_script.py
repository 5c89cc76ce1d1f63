"""The script in Envoy, by itself: the windows and counts that the access log brings, whatever the pieces.

The processor runs in the test's own process, so that a test sees the entries.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from extproc.envoy.server.processor import Processor
from extproc.exchange import unread
from extproc.exchange.unread import BESIDE, HEAD, TAIL
from extproc.settings import config
from extproc.words.tries import Seen, Try, UnderWay
from tests.e2e import parts
from tests.e2e.conftest import KEY, chat_body, eventually, free_ports
from tests.e2e.scripted import Scripted, head
from tests.unread.streams import APIS, event, stream
from tests.unread.test_windows import by_event, pieces
from tests.unread.watch import watched

YAML = """
listener: {{address: 127.0.0.1, port: {}}}
status: {{address: 127.0.0.1, port: {}}}
admin: {{address: 127.0.0.1, port: {}}}
providers: {{openai: {{kind: openai, base_url: "{}/v1"}}}}
models: {{oai: {{provider: openai}}}}
consumers: [{{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}]
stores: {{counters: "memory:", ledger: "memory:"}}
usage: {{mode: log}}
"""


@dataclass
class Watched:
    """A gateway, and what its Envoy told of each try."""

    url: str
    provider: Scripted
    entries: list[Try | UnderWay] = field(default_factory=list)

    def follow(self, sent: list[bytes], pace: float = 0.0) -> Seen:
        """What the script saw of an answer that is sent in these pieces."""

        def script() -> Iterator[bytes]:
            yield head("text/event-stream")
            for piece in sent:
                yield piece
                if pace:
                    time.sleep(pace)

        self.provider.script = script
        self.entries.clear()
        body = chat_body("oai", stream=True, stream_options={"include_usage": True})
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(self.url + "/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=30)
        assert answer.content == b"".join(sent)
        [entry] = eventually(lambda: [entry for entry in self.entries if isinstance(entry, Try)])
        assert entry.answer_bytes == len(answer.content)
        assert entry.seen is not None
        return entry.seen


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("EXTPROC_DEMO_KEY", KEY)
        provider = stack.enter_context(Scripted().running())
        folder = tmp_path_factory.mktemp("script")
        file, log = folder / "gateway.yaml", folder / "log.txt"
        ports = free_ports(3)
        file.write_text(YAML.format(*ports, provider.url))
        found = Watched(f"http://127.0.0.1:{ports[0]}", provider)
        stack.enter_context(serving(file, folder / "s.sock", found.entries.append))
        stack.enter_context(parts.envoy(file, log, folder / "s.sock"))
        yield found


class serving:  # noqa: N801 - a context
    """The processor, on a thread. `told` gets each entry of a try's log."""

    def __init__(self, file: Path, socket: Path, told: Callable[[Try | UnderWay], None]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._processor = self._run(self._start(file, socket, told))

    async def _start(self, file: Path, socket: Path, told: Callable[[Try | UnderWay], None]) -> Processor:
        processor = Processor(file, config.load(file), socket=str(socket))
        tell = processor._services.waiting.tell
        processor._services.waiting.tell = lambda entry: (told(entry), tell(entry))[1]  # type: ignore[method-assign]
        await processor.start()
        return processor

    def _run(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._run(self._processor.stop(notice=0, grace=0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def check(seen: Seen, body: bytes) -> None:
    """What holds however the answer was cut into pieces."""
    assert seen.ended
    assert seen.head == body[:HEAD]
    assert (seen.tail_at, seen.tail) == (max(0, len(body) - TAIL), body[-TAIL:])
    assert (seen.size, seen.lines) == (len(body), sum(line.startswith(b"data:") for line in body.splitlines()))
    assert seen.usage == body[seen.usage_at : seen.usage_at + len(seen.usage)]
    place = max(body.rfind(b'"usage":{'), body.rfind(b'"usage": {'))
    if place >= 0:
        end = seen.usage_at + len(seen.usage)
        assert seen.usage_at <= max(0, place - BESIDE + 16)
        assert min(len(body), place + BESIDE) - 16 <= end
    else:
        assert seen.usage == b""
    assert 1 <= len(seen.times) <= unread.TIMES
    assert seen.times[0][0] == 0
    assert all(0 <= seconds < 30 for _, seconds in seen.times)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(("words", "size"), [(3, 1), (40, 37), (40, 10_000), (1500, 997), (1500, 100_000)])
def test_windows_of_an_answer(gateway: Watched, api: str, words: int, size: int) -> None:
    body = stream(api, words)
    check(gateway.follow(pieces(body, size), 0.0005 if size == 1 else 0), body)


@pytest.mark.parametrize("line", [b"\r\n", b"\r"])
def test_other_ends_of_lines(gateway: Watched, line: bytes) -> None:
    body = stream("anthropic_messages", 300).replace(b"\n", line)
    check(gateway.follow(pieces(body, 501)), body)


def test_bytes_that_are_no_text(gateway: Watched) -> None:
    body = b"data: \x00\xff\xfe\n\ndata: \xe2\x82\n\n" * 500 + bytes(range(256)) * 20
    seen = gateway.follow(pieces(body, 777))
    assert (seen.head, seen.tail) == (body[:HEAD], body[-TAIL:])


def test_an_empty_answer(gateway: Watched) -> None:
    assert gateway.follow([]) == Seen(ended=True)


def test_usage_in_every_event_and_none_in_most(gateway: Watched) -> None:
    word = {"model": "m", "choices": [{"index": 0, "delta": {"content": " word"}}]}
    each = [event({**word, "usage": {"prompt_tokens": 3, "completion_tokens": number}}) for number in range(400)]
    check(gateway.follow(each), b"".join(each))
    none = [event({**word, "usage": None})] * 400
    check(gateway.follow(none), b"".join(none))
    early = [*none[:200], each[0], *none[:200]]
    check(gateway.follow(early), b"".join(early))


@pytest.mark.parametrize("size", [10_000, 20_000, 60_000, 200_000])
def test_usage_at_the_beginning_of_a_large_piece(gateway: Watched, size: int) -> None:
    """Its window reaches into the pieces before, although the tail needs none of them any more."""
    word = {"model": "m", "choices": [{"index": 0, "delta": {"content": " word"}}]}
    said, usage = event(word), event({**word, "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    sent = [said * 100, said * 5 + usage + said * (size // len(said))]
    for _ in range(3):  # Envoy may read a piece in parts
        check(gateway.follow(sent, 0.05), b"".join(sent))


def test_the_twin_in_python_does_the_same(gateway: Watched) -> None:
    """Pieces that come apart in time are the pieces that Envoy sees, unless the machine is busy."""
    sent = by_event(stream("openai_chat", 12))
    wanted = watched(sent)
    for _ in range(8):
        found = gateway.follow(sent, 0.02)
        if [at for at, _ in found.times] == [at for at, _ in wanted.times]:
            break
    for name in ("head", "usage", "usage_at", "tail", "tail_at", "size", "lines", "ended"):
        assert getattr(found, name) == getattr(wanted, name), name
