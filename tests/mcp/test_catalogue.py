"""Catalogues: what is read of a server, kept as it is, and left out."""

import asyncio
import json

import msgspec
import pytest

from extproc.tools.mcp import catalogue
from extproc.tools.mcp.catalogue import Catalogue, look, same
from extproc.tools.mcp.link import RefusedError, ServerError
from extproc.tools.mcp.settings import MCPLimitsSettings

MODERN = "2026-07-28"


class FakeLink:
    """A server in place of its link: `lists` by method, each a list of pages."""

    def __init__(self, lists=None, *, modern=True, legacy="2025-11-25", capabilities=None):
        self.lists = lists or {}
        self.modern, self.legacy = modern, legacy
        self.capabilities = {"tools": {}, "prompts": {}, "resources": {}} if capabilities is None else capabilities
        self.asked, self.ended = [], []
        self.unknown = True

    async def ask(self, method, params, version, session="", capabilities=None, *, user=()):
        self.asked.append((method, version, session))
        if method == "server/discover":
            if not self.modern:
                raise RefusedError
            return self._raw({"supportedVersions": [MODERN], "capabilities": self.capabilities, "instructions": "i"})
        if method == "initialize":
            if not self.legacy:
                raise RefusedError
            return self._raw({"protocolVersion": self.legacy, "capabilities": self.capabilities})[0], "their-session"
        pages = self.lists.get(method)
        if pages is None:
            raise RefusedError(unknown=self.unknown)
        page = int(params.get("cursor", 0))
        more = {"nextCursor": str(page + 1)} if page + 1 < len(pages) else {}
        return self._raw(pages[page] if isinstance(pages[page], bytes) else {**pages[page], **more})

    async def tell(self, body, version, session="", user=()):
        pass

    async def end(self, version, session):
        self.ended.append(session)

    @staticmethod
    def _raw(value):
        return msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode()), ""


def tool(name, **more):
    return {"name": name, "inputSchema": {"type": "object", "properties": {}}, **more}


def looked(link, before=None, **limits):
    return asyncio.run(look("s", link, MCPLimitsSettings(**limits), before))


def names(found, kind="tools"):
    return list(found.entries[kind])


def test_all_pages_are_read_in_their_order():
    link = FakeLink({"tools/list": [{"tools": [tool("b"), tool("a")]}, {"tools": [tool("c")], "ttlMs": 9000}]})
    found = looked(link)
    assert names(found) == ["b", "a", "c"]
    assert (found.modern, found.legacy, found.sessions, found.ttl) == (True, "2025-11-25", True, 9.0)
    assert link.ended == ["their-session"], "the session that was only for looking"
    assert [version for method, version, _ in link.asked if method == "tools/list"] == [MODERN] * 2


def test_servers_of_one_era_are_known_as_such():
    old = looked(FakeLink({"tools/list": [{"tools": [tool("a")]}]}, modern=False))
    assert (old.modern, old.legacy, names(old)) == (False, "2025-11-25", ["a"])
    new = looked(FakeLink({"tools/list": [{"tools": [tool("a")]}]}, legacy=""))
    assert (new.modern, new.legacy) == (True, "")
    with pytest.raises(ServerError):
        looked(FakeLink(modern=False, legacy=""))
    with pytest.raises(ServerError):
        looked(FakeLink(modern=False, legacy="1999-01-01"))


def test_a_later_look_keeps_what_is_known_of_the_other_era():
    link = FakeLink({"tools/list": [{"tools": [tool("a")]}]})
    first = looked(link)
    link.asked.clear()
    assert same(first, looked(link, first))
    assert "initialize" not in [method for method, *_ in link.asked]


def test_definitions_stay_as_they_were_written():
    odd = {
        "name": "a",
        "inputSchema": {"properties": {}, "x": [1, 2.50, 1e300, "\u00e9"]},
        "zz": None,
    }
    [entry] = looked(FakeLink({"tools/list": [{"tools": [odd]}]})).entries["tools"].values()
    assert msgspec.json.decode(msgspec.json.encode(entry.fields)) == odd
    assert b"2.5" in bytes(entry.fields["inputSchema"])
    assert entry.value("zz") is None


def test_definitions_that_cannot_be_offered_are_left_out():
    wrong = [
        *(tool(name) for name in ("", "x" * 129, "a\nb", "a\u202eb", 7, None)),
        *([], 7, None, {"inputSchema": {}}),
        tool("dup"),
        tool("dup", title="second"),
        *(
            tool(f"h{number}", inputSchema={"properties": {"t": {"type": "string", "x-mcp-header": header}}})
            for number, header in enumerate(("Tenant_Id", "", "a b", 7, "a:b"))
        ),
        tool("root", inputSchema={"x-mcp-header": "X", "properties": {}}),
    ]
    found = looked(FakeLink({"tools/list": [{"tools": [tool("good"), *wrong, tool("last")]}]}))
    assert names(found) == ["good", "dup", "last"]
    assert len(found.left_out) == len(wrong) - 1
    reasons = {each.name: each.reason for each in found.left_out}
    assert "129 characters, of 1 to 128 (mcp.limits.name)" in reasons["x" * 129]
    assert "people do not see" in reasons["a\u202eb"]
    assert "same name" in reasons["dup"]
    assert "x-mcp-header" in reasons["h0"]
    assert "no definition" in reasons[""]
    assert found.complete


def test_arguments_that_stand_in_headers_are_known():
    schema = {"properties": {"a": {"x-mcp-header": "Region"}, "b": {"properties": {"c": {"x-mcp-header": "Zone"}}}}}
    [entry] = looked(FakeLink({"tools/list": [{"tools": [tool("t", inputSchema=schema)]}]})).entries["tools"].values()
    assert sorted(entry.headers) == [(("a",), "region"), (("b", "c"), "zone")]


def test_everything_that_a_server_controls_is_bounded():
    many = FakeLink({"tools/list": [{"tools": [tool(f"t{number}") for number in range(50)]}]})
    found = looked(many, tools=10)
    assert names(found) == [f"t{number}" for number in range(10)]
    assert [each.name for each in found.left_out] == [f"t{number}" for number in range(10, 50)]
    assert "mcp.limits.tools" in found.left_out[0].reason
    beyond = FakeLink({"tools/list": [{"tools": [tool(f"t{number}") for number in range(200)]}]})
    assert len(looked(beyond, tools=10).left_out) == catalogue.MOST_LEFT_OUT
    assert not looked(beyond, tools=10).complete
    endless = FakeLink({"tools/list": [{"tools": [tool(f"p{page}")]} for page in range(2000)]})
    assert len(names(looked(endless, pages=7))) == 7
    assert not looked(endless, pages=7).complete
    large = FakeLink({"tools/list": [{"tools": [tool("small"), tool("large", title="x" * 4000), tool("next")]}]})
    assert names(looked(large, catalogue=2048)) == ["small", "next"]
    long = FakeLink({"resources/list": [{"resources": [{"uri": "a:" + "x" * 100}, {"uri": "a:b"}]}]})
    assert names(looked(long, uri=64), "resources") == ["a:b"]


def test_lists_of_the_wrong_shape_are_a_bad_answer_and_refused_lists_are_empty():
    for page in ({"tools": 7}, {"tools": {}}, b"[]", {"tools": [], "nextCursor": 7}):
        with pytest.raises(ServerError) as raised:
            looked(FakeLink({"tools/list": [page]}))
        assert raised.value.code == "bad_answer"
    assert names(looked(FakeLink({}))) == []
    broken = FakeLink({})
    broken.unknown = False
    with pytest.raises(ServerError):
        looked(broken)
    assert names(looked(FakeLink({"tools/list": [{"tools": [tool("a")]}]}, capabilities={}))) == []


def test_a_change_of_anything_that_clients_see_is_a_change():
    def made(*tools):
        return looked(FakeLink({"tools/list": [{"tools": list(tools)}]}))

    base = made(tool("a"), tool("b"))
    assert same(base, made(tool("a"), tool("b")))
    assert not same(base, made(tool("b"), tool("a")))
    assert not same(base, made(tool("a"), tool("b", description="other")))
    assert not same(None, Catalogue())


def test_every_kind_of_list_has_its_field():
    assert set(catalogue.KINDS.values()) == set(catalogue.FIELDS)
