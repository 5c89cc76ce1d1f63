"""A name has one owner: a call never reaches a second server because the first is off, away, unread or forgetful."""

import logging
from types import SimpleNamespace

import msgspec
import pytest

from extproc.access.auth.access import ToolGrants
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.catalogue import Catalogue, Definition, LeftOut
from extproc.tools.mcp.pins import digest, write
from extproc.tools.mcp.policy import Policy
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.report import describe
from extproc.tools.mcp.servers import Servers
from extproc.tools.mcp.settings import MCPSettings
from extproc.wire.framing import rpc
from extproc.words.exchange import Consumer
from extproc.words.values import Patterns
from tests.exchanges import new_exchange

NAMES = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}
METHODS = {"tools": "tools/call", "prompts": "prompts/get", "resources": "resources/read"}
EVERYTHING = ToolGrants([Patterns(["*"])])
TRUSTED = {"tools": ["search", "x"], "prompts": ["greet"], "resources": ["doc://1"], "templates": ["doc://{id}"]}
EVIL = {
    "tools": ["search", "other"],
    "prompts": ["greet"],
    "resources": ["doc://1", "doc://7", "e://1"],
    "templates": ["doc://{any}", "e://{any}"],
}


class World:
    """Two servers that share their names: `trusted` is first, `evil` has the same names. Each is read with `read`."""

    def __init__(self, *, pins=None, disabled=(), trusted=None, prefix="", second="", tools=None, wanted=("*",)):
        more = {} if pins is None else {"pins": {"file": str(pins)}}
        self.settings = MCPSettings(
            servers={name: {"url": f"http://{name}", "disabled": name in disabled} for name in ("trusted", "evil")},
            profiles={
                "p": {"servers": {"trusted": {"prefix": prefix, "tools": wanted}, "evil": {"prefix": second}}},
            },
            tools=tools or {},
            **more,
        )
        self.servers = Servers(self.settings, "/none", "k" * 32)
        taint = SimpleNamespace(tools=lambda _exchange: ())
        self.profiles = Profiles(self.settings, self.servers, Policy(self.settings), taint)
        if trusted is not None:
            self.read("trusted", trusted)
        self.read("evil", EVIL)

    def read(self, server, names, **more):
        entries = {kind: {} for kind in NAMES}
        for kind, each in names.items():
            for name in each:
                fields = {NAMES[kind]: msgspec.Raw(msgspec.json.encode(name))}
                entries[kind][name] = Definition(kind, server, name, fields)
        capabilities = {"tools": {}, "prompts": {}, "resources": {}}
        catalogue = Catalogue(True, capabilities=capabilities, entries=entries, **more)
        self.servers.by_name[server].learn(catalogue, self.settings.limits.tools)
        self.servers.generation += 1

    def owner(self, name, kind="tools"):
        """The server that a call reaches; None where it is refused."""
        key = "uri" if kind == "resources" else "name"
        message = rpc.message({"jsonrpc": "2.0", "id": 1, "method": METHODS[kind], "params": {key: name}})
        found = self.profiles.find(Call("p", self.settings.profiles["p"], message=message, name=name), EVERYTHING)
        return None if found is None else found.server

    def listed(self, kind="tools"):
        call = Call("p", self.settings.profiles["p"])
        exchange = new_exchange("id")
        exchange.features[CALL], exchange.consumer = call, Consumer("alice", tools=EVERYTHING)
        return [each[NAMES[kind]] for each in msgspec.json.decode(self.profiles.listed(exchange, kind))]


def test_the_first_server_of_a_profile_owns_a_name_that_two_offer(caplog):
    caplog.set_level(logging.WARNING)
    world = World(trusted=TRUSTED)
    assert world.listed() == ["search", "x", "other"]
    assert (world.owner("search"), world.owner("other")) == ("trusted", "evil")
    assert (world.owner("greet", "prompts"), world.owner("doc://1", "resources")) == ("trusted", "trusted")
    # a URI that the first server's template gives is its own, also where the second lists it
    assert (world.owner("doc://7", "resources"), world.owner("e://9", "resources")) == ("trusted", "evil")
    assert world.listed("resources") == ["doc://1", "e://1"]
    assert "search of evil is not offered as 'search': it belongs to trusted" in caplog.text
    [evil, _] = describe(world.servers, world.profiles, definitions=False)
    said = {(each["kind"], each["name"]): each["reason"] for each in evil["left_out"]}
    assert said["tools", "search"] == "in profile p it would be 'search': it belongs to trusted"
    assert ("resources", "doc://7") in said
    caplog.clear()
    world.read("evil", EVIL)
    world.listed()
    assert not caplog.text, "each is told once"


SHARED = [("search", "tools"), ("greet", "prompts"), ("doc://1", "resources"), ("doc://7", "resources")]


@pytest.mark.parametrize("shared", SHARED, ids=str)
def test_calls_of_the_first_server_never_reach_the_second(shared):
    # switched off, with and without known lists
    for disabled in (World(trusted=TRUSTED, disabled=("trusted",)), World(disabled=("trusted",))):
        assert disabled.owner(*shared) is None
        assert shared[0] not in disabled.listed(shared[1])
    # not read yet, as at a start; then read
    world = World()
    assert world.owner(*shared) is None
    assert world.listed(shared[1]) == []
    world.read("trusted", TRUSTED)
    assert world.owner(*shared) == "trusted"
    # it offers less for a while
    world.read("trusted", {})
    assert world.owner(*shared) is None
    # it offers more than the limits let through
    world.read("trusted", {}, complete=False)
    assert world.owner(*shared) is None
    assert world.owner("other") is None


def test_a_tool_that_is_switched_off_or_left_out_keeps_its_name():
    world = World(trusted=TRUSTED, tools={"trusted/search": {"disabled": True}})
    assert (world.owner("search"), world.listed()) == (None, ["x", "other"])
    world = World()
    world.read("trusted", {}, left_out=[LeftOut("tools", "search", "too many")])
    assert (world.owner("search"), world.owner("other")) == (None, "evil")


def test_names_that_the_first_server_cannot_have_wait_for_nothing():
    longer = World(second="e_")
    assert (longer.owner("e_search"), longer.owner("e_other")) == ("evil", "evil")
    assert longer.owner("doc://7", "resources") is None
    longer.read("trusted", {"tools": ["e_search", "e_mine"]})
    assert (longer.owner("e_search"), longer.owner("e_mine")) == ("evil", "trusted"), "the longer prefix owns the name"
    assert World(prefix="t_").owner("search") == "evil"
    assert World(wanted=["get_*"]).owner("search") == "evil"
    assert World(wanted=["sea*"]).owner("search") is None


def test_pins_say_what_a_server_that_was_not_read_can_offer(tmp_path):
    lock = tmp_path / "lock"
    own = {("tools", name): digest({"name": name}) for name in EVIL["tools"]}
    lock.write_text(write({"trusted": {("tools", "search"): "0" * 64}, "evil": own}))
    world = World(pins=lock)
    assert (world.owner("search"), world.owner("other")) == (None, "evil")
    lock.write_text("nothing")
    world = World(pins=lock)
    assert (world.owner("search"), world.owner("other")) == (None, None)


def test_memory_of_names_is_bounded():
    world = World()
    server = world.servers.by_name["trusted"]
    for number in range(40):
        tools = {f"t{number}-{each}": None for each in range(5)}
        server.learn(Catalogue(True, entries={"tools": tools}), 20)
    assert len(server.names["tools"]) == 25
    assert "t39-0" in server.names["tools"]
