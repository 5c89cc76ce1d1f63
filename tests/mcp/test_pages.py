"""Long results page by page: nothing is lost, and nobody else reads it."""

import json
import random
from types import SimpleNamespace

import pytest

from extproc.cache.answers import Answers
from extproc.cache.entry import NoSeal
from extproc.cache.stores.memory import MemoryStore
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.pages import LINK, CutResult, Pages, page_end
from extproc.tools.mcp.profile_settings import MCPProfileSettings
from extproc.tools.mcp.settings import ToolPolicySettings
from extproc.wire.framing import Frame
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer
from tests.exchanges import new_exchange

SIZE = 1024
PROFILE = MCPProfileSettings(servers={"s": {}}, discovery="search", pages={"size": SIZE})
LONG = "Zeile äöü 漢字\n" * 300
NO_STORE = Answers(MemoryStore(1000), b"k" * 32, NoSeal())


class Taint:
    def __init__(self):
        self.marked = []

    async def mark(self, exchange, tool):
        self.marked.append((exchange.consumer.name, tool))


@pytest.fixture
def pages():
    answers = Answers(MemoryStore(1 << 22), b"k" * 32, NoSeal())
    answers.turns = Answers(MemoryStore(1 << 22), b"k" * 32, NoSeal())
    taint = Taint()
    return SimpleNamespace(pages=Pages(answers, taint), taint=taint)


def asked(consumer="ada", profile="dev", **policy):
    exchange = new_exchange("x")
    exchange.features[CALL] = Call(profile, PROFILE, name="s__t", server="s", tool="t")
    exchange.features[CALL].policy = ToolPolicySettings(**policy)
    exchange.consumer = Consumer(consumer)
    return exchange


async def cut(pages, result, exchange=None, *, streamed=False):
    data = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    raw = b"event: message\ndata: %b\n\n" % data if streamed else data
    [event] = await CutResult(pages)(exchange or asked(), [Frame(raw, data)], True)
    assert event.data in event.raw
    return json.loads(event.data)["result"]


def text(said):
    return [{"type": "text", "text": said}]


def link_of(result):
    return next((each["uri"] for each in result["content"] if each["type"] == "resource_link"), "")


async def whole(pages, result, **who):
    """The text of all pages, as a client reads them one after the other."""
    said, uri = result["content"][0]["text"], link_of(result)
    while uri:
        page, *more = (await pages.read(asked(**who), uri))["contents"]
        assert (page["uri"], page["mimeType"], len(page["text"].encode()) <= SIZE) == (uri, "text/plain", True)
        said, uri = said + page["text"], more[0]["uri"] if more else ""
    return said


@pytest.mark.parametrize("streamed", [False, True])
async def test_all_pages_are_the_whole_text(pages, streamed):
    image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
    inner = {"type": "resource", "resource": {"uri": "a:b", "text": LONG}}
    for result, meant in (
        ({"content": text(LONG)}, LONG),
        ({"content": [*text("one"), image, inner], "isError": True, "_meta": {"a": 1}}, "one\n" + LONG),
        ({"content": text(LONG), "structuredContent": {"said": "short"}}, LONG),
        ({"content": text("short"), "structuredContent": {"said": "x" * 5000}}, 'short\n{"said":"%s"}' % ("x" * 5000)),
        ({"content": [], "structuredContent": ["x" * 5000]}, '["%s"]' % ("x" * 5000)),
    ):
        found = await cut(pages.pages, result, streamed=streamed)
        assert "structuredContent" not in found
        assert [each for each in found["content"] if each["type"] == "image"] == [image] * (image in result["content"])
        assert {name: found.get(name) for name in ("isError", "_meta")} == {
            name: result.get(name) for name in ("isError", "_meta")
        }
        assert await whole(pages.pages, found) == meant
    assert pages.taint.marked == []


@pytest.mark.parametrize(
    "result",
    [
        {"content": text("x" * SIZE)},
        {"content": [{"type": "image", "data": "A" * 5000, "mimeType": "image/png"}]},
        "x" * 2000,
        {},
    ],
)
async def test_results_with_less_text_than_a_page_stay(pages, result):
    assert await cut(pages.pages, result if isinstance(result, dict) else {"other": result}) == (
        result if isinstance(result, dict) else {"other": result}
    )


def test_pages_end_between_characters_and_make_progress():
    chance = random.Random(20261125)
    for _ in range(200):
        said = "".join(chance.choice(("a", "\n", "ä", "漢", "😀")) for _ in range(chance.randint(1, 60))).encode()
        size, at, pages = chance.randint(4, 20), 0, []
        while at < len(said):
            end = page_end(said, at, size)
            assert at < end <= at + size
            pages.append(said[at:end].decode())
            at = end
        assert "".join(pages).encode() == said


async def test_a_page_is_its_consumers_in_its_profile(pages):
    uri = link_of(await cut(pages.pages, {"content": text(LONG)}))
    assert (await pages.pages.read(asked(), uri))["contents"]
    wrong = f"{LINK}{'0' * 32}/5"
    beyond = uri.rpartition("/")[0] + "/999999"
    for who, asks in (
        (asked("eve"), uri),
        (asked(profile="other"), uri),
        *((asked(), each) for each in (wrong, beyond, LINK, uri + "x")),
    ):
        with pytest.raises(Refusal, match="Resource not found"):
            await pages.pages.read(who, asks)


async def test_a_page_of_an_untrusted_tool_taints_the_run_that_reads_it(pages):
    uri = link_of(await cut(pages.pages, {"content": text(LONG)}, asked(untrusted=True)))
    await pages.pages.read(asked(), uri)
    assert pages.taint.marked == [("ada", "s/t")]


@pytest.mark.parametrize("answers", [None, NO_STORE])
async def test_without_a_store_the_result_says_that_its_rest_is_gone(answers):
    found = await cut(Pages(answers, Taint()), {"content": text(LONG)})
    assert LONG.startswith(found["content"][0]["text"])
    assert "was not kept: ask for less" in found["content"][1]["text"]
    assert link_of(found) == ""
