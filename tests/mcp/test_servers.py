"""Servers as a process knows them: looks, last good lists, and sessions at servers."""

import asyncio
from types import SimpleNamespace

import pytest

from extproc.tools.mcp import servers as module
from extproc.tools.mcp.catalogue import Catalogue
from extproc.tools.mcp.link import NoEnvoyError, RefusedError, ServerError, SessionGoneError
from extproc.tools.mcp.servers import Servers, SessionTicket
from extproc.tools.mcp.sessions import ServerQuestion
from extproc.tools.mcp.settings import MCPSettings
from tests.mcp.test_catalogue import FakeLink, tool

SETTINGS = {
    "servers": {"a": {"url": "http://a", "refresh": "1s"}, "b": {"url": "http://b", "refresh": "1s"}},
    "profiles": {"dev": {"servers": {"a": {}, "b": {}}}},
}


class Link(FakeLink):
    """A server that notes what it is told, and fails with `error`."""

    def __init__(self, **more):
        super().__init__({"tools/list": [{"tools": [tool("x")]}]}, **more)
        self.told, self.opened, self.error, self.wait = [], 0, None, 0.0
        self.gone = set()

    async def ask(self, method, params, version, session="", capabilities=None, *, user=()):
        await asyncio.sleep(self.wait)
        if self.error is not None:
            raise self.error
        if session in self.gone:
            raise SessionGoneError
        if method == "initialize":
            self.opened += 1
            return self._raw({"protocolVersion": self.legacy, "capabilities": self.capabilities})[0], f"z{self.opened}"
        if method == "ping":
            return self._raw({})
        return await super().ask(method, params, version, session)

    async def tell(self, body, version, session="", user=()):
        self.told.append((body, session))


@pytest.fixture
def made(tmp_path):
    envoy = tmp_path / "mcp.sock"
    envoy.touch()
    servers = Servers(MCPSettings(**SETTINGS), str(envoy), "k" * 32)
    for server in servers.by_name.values():
        server.link = Link(modern=False)
    return servers


async def until(true):
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_lists_are_read_at_once_and_the_last_good_ones_stay(made, monkeypatch):
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    one, other = made.by_name.values()
    one.link.error = NoEnvoyError("server_unavailable")
    running = asyncio.create_task(made.run())
    await until(lambda: other.catalogue)
    assert (one.catalogue, one.known.is_set(), other.known.is_set()) == (None, False, True)
    one.link.error = None
    await until(lambda: one.catalogue)
    generation, good = made.generation, one.catalogue
    one.link.error, one.due = ServerError("bad_answer"), 0.0
    made._wake.set()
    await until(lambda: one.failing)
    assert (one.catalogue, one.failing, made.generation) == (good, "bad_answer", generation)
    one.link.error, one.link.lists = None, {"tools/list": [{"tools": [tool("y")]}]}
    await until(lambda: "y" in one.catalogue.entries["tools"])
    assert made.generation > generation
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_servers_are_looked_at_as_soon_as_envoy_listens(made, monkeypatch):
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    envoy = made._socket
    envoy.unlink()
    one = made.by_name["a"]
    running = asyncio.create_task(made.run())
    await until(lambda: one.failures > 1)
    assert (one.failing, one.known.is_set(), made._tasks) == ("server_unavailable", False, set())
    envoy.touch()
    await until(lambda: one.catalogue)
    assert (one.failing, one.failures) == ("", 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_first_request_waits_for_the_first_look_and_for_no_server_that_hangs(made, monkeypatch):
    monkeypatch.setattr(module, "_FIRST", 0.05)
    made.by_name["a"].known.set()
    await made.wait_first_look({"a": None, "gone": None})
    began = asyncio.get_running_loop().time()
    await made.wait_first_look({"a": None, "b": None})
    assert 0.04 < asyncio.get_running_loop().time() - began < 1
    await made.wait_first_look({"b": None})
    assert made.by_name["b"].known.is_set()


async def test_each_owner_has_one_session_at_a_server_however_many_ask_at_once(made):
    made.by_name["a"].link.wait = 0.01
    found = await asyncio.gather(*[made.session(f"o{number % 2}", "a", None) for number in range(40)])
    assert {each.id for each in found} == {"z1", "z2"}
    made.forget(SessionTicket("a", "z0", "2025-11-25", "o1", ""))
    assert (await made.session("o1", "a", None)).id == "z2", "that one was forgotten before"
    made.forget(SessionTicket("a", "z2", "2025-11-25", "o1", ""))
    assert (await made.session("o1", "a", None)).id == "z3"
    assert (await made.session("o0", "a", None)).id == "z1"


async def test_a_later_try_goes_into_a_session_that_the_server_knows(made):
    link, version = made.by_name["a"].link, "2025-11-25"
    first = await made.session("o", "a", None)
    ticket = SessionTicket("a", first.id, version, "o", "")
    assert await made.renewed(ticket.text) == {"mcp-session-id": "z1", "mcp-protocol-version": link.legacy}, "it lives"
    assert made.after(ticket, "z1") == "z1"
    link.gone = {"z1"}
    found = await asyncio.gather(*[made.renewed(ticket.text) for _ in range(20)])
    assert {each["mcp-session-id"] for each in found} == {"z2"}, "one is opened for all of them"
    assert made.after(ticket, "") == "z2"
    # this process has a session of its own that is gone, too
    link.gone = {"z1", "z2"}
    assert (await made.renewed(ticket.text))["mcp-session-id"] == "z3"
    # another process opened it
    ticket = SessionTicket("a", "z3", version, "o", "")
    assert made.after(ticket, "elsewhere") == "elsewhere"
    assert (await made.session("o", "a", None)).id == "z4"
    # a server that cannot be asked, and one that is not there
    link.error = ServerError("server_unavailable")
    for ticket in (SessionTicket("a", "z4", version, "o", ""), SessionTicket("gone", "z", version, "o", "forged")):
        assert (await made.renewed(ticket.text))["mcp-session-id"] == ticket.session


async def test_a_session_that_cannot_be_opened_is_tried_anew(made):
    link = made.by_name["a"].link
    for error, code in ((ServerError("server_timeout"), "server_timeout"), (RefusedError(), "bad_answer")):
        link.error = error
        with pytest.raises(ServerError) as raised:
            await made.session("o", "a", None)
        assert raised.value.code == code
    link.error = None
    assert (await made.session("o", "a", None)).id == "z1"
    with pytest.raises(ServerError):
        await made.session("o", "gone", None)


async def test_sessions_at_servers_are_bounded_and_the_longest_at_rest_is_ended(made):
    made.apply_settings(MCPSettings(**SETTINGS, limits={"sessions": 3}), None)
    link = made.by_name["a"].link
    for number in range(3):
        await made.session(f"o{number}", "a", None)
    await made.session("o0", "a", None)
    await made.session("o3", "a", None)
    await until(lambda: link.ended)
    assert (link.ended, len(made._at_servers)) == (["z2"], 3)


async def test_the_end_of_a_clients_session_ends_those_at_servers(made):
    client = made.sessions.begin("dev/bob", "2025-11-25", {})
    for name in ("a", "b"):
        await made.session(client.id, name, client)
    await made.session("another", "a", None)
    made.tell_all(client, b"cancelled")
    made.decline(client, 7)
    await until(lambda: sum(len(server.link.told) for server in made.by_name.values()) == 4 + 3)
    assert (b"cancelled", "z1") in made.by_name["a"].link.told
    made.end(client)
    await until(lambda: all(server.link.ended for server in made.by_name.values()))
    assert list(made._at_servers) == [("another", "a")]


async def test_servers_come_and_go_with_the_settings(made):
    kept = made.by_name["a"]
    kept.catalogue = Catalogue()
    servers = {"a": SETTINGS["servers"]["a"], "c": {"url": "http://c"}}
    made.apply_settings(MCPSettings(servers=servers, profiles={"dev": {"servers": {"a": {}}}}), None)
    assert (list(made.by_name), made.by_name["a"]) == (["a", "c"], kept)
    servers = {"a": {"url": "http://elsewhere"}}
    made.apply_settings(MCPSettings(servers=servers, profiles={"dev": {"servers": {"a": {}}}}), None)
    assert made.by_name["a"] is not kept
    for gone in ("b", "c"):
        made.again(gone)
        made.refuse(ServerQuestion(gone, "z", "2025-11-25", 1))


async def test_lists_of_sessions_are_bounded_read_once_at_a_time_and_read_again_when_they_may_differ(made, monkeypatch):
    made.apply_settings(MCPSettings(**SETTINGS, limits={"session_lists": 2}), None)
    link = made.by_name["a"].link
    made.by_name["a"].learn(Catalogue(legacy="2025-11-25", sessions=True, capabilities={"tools": {}}), 10)
    call = SimpleNamespace(session=SimpleNamespace(id="s", capabilities={}), modern=False, capabilities={}, server="a")

    def reads():
        return sum(method == "tools/list" for method, _, _ in link.asked)

    async def get(owner, *, new=False):
        found = await made.own.get(owner, "a", call, refresh=60.0, new=new)
        return None if found is None else [*found.entries["tools"]]

    link.wait = 0.01
    assert await asyncio.gather(*[get("one", new=True) for _ in range(5)]) == [["x"]] * 5
    assert (await get("one"), reads(), link.opened) == (["x"], 1, 1)
    made.own.used("one", call)
    assert (await get("one"), reads()) == (["x"], 1), "calls go by the lists that are there"
    link.lists["tools/list"] = [{"tools": [tool("x"), tool("y")]}]
    assert (await get("one", new=True), reads()) == (["x", "y"], 2)
    # two are kept: the one that rested longest is read again
    await get("two")
    await get("three")
    await get("one")
    assert reads() == 5
    # a session that the server has ended is opened anew; lists that cannot be read are none
    link.gone.add("z1")
    made.own.used("one", call)
    assert await get("one", new=True) == ["x", "y"]
    link.error = ServerError("server_unavailable")
    made.own.end("one", "a")
    assert await get("one") is None


async def test_definitions_that_do_not_fit_are_logged_once_for_each_change(made, caplog):
    one = made.by_name["a"]

    def offer(*names):
        one.link.lists = {"tools/list": [{"tools": [tool(name) for name in names]}]}
        one.due = 0.0
        made._wake.set()

    def lines():
        return [record.message for record in caplog.records if "is not offered" in record.message]

    async def looked_again():
        before = one.looked
        one.due = 0.0
        made._wake.set()
        await until(lambda: one.looked > before)

    offer("x", "evil\u200b\nname", "l" * 5000)
    running = asyncio.create_task(made.run())
    await until(lambda: len(lines()) == 2)
    assert lines()[0].startswith("MCP server a: a definition is not offered: tools 'evil\\u200b\\nname': its name has ")
    assert all(len(line) < 400 for line in lines())
    await looked_again()
    offer("x", "y", "evil\u200b\nname", "l" * 5000)  # another catalogue that lacks the same
    await until(lambda: "y" in one.catalogue.entries["tools"])
    assert len(lines()) == 2
    offer("x", *(f"{number}\u200b" for number in range(90)))
    await until(lambda: len(lines()) > 2)
    assert len(lines()) == 2 + 21
    assert lines()[-1].endswith("70 more: see `extproc mcp list`, and mcp.limits")
    running.cancel()
