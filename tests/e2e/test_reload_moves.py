"""Reloads that move what names lead to, under continuous traffic: no request fails, whatever kind of name it is."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doubles.mcp import McpServer, McpServers, tool
from tests.e2e.conftest import KEY, Gateway, chat_body, eventually, run_gateway
from tests.e2e.test_mcp import Client

PROVIDER = '  {name}: {{kind: {kind}, base_url: "{url}/v1"{more}}}\n'
SETTINGS = """
providers:
PROVIDERS
models:
MODELS
virtual_models:
VIRTUAL
mcp:
  servers:
SERVERS
  profiles:
    dev: {servers: {SHARES}}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["*"]}
  - {name: narrow, keys: [{env: NARROW_KEY}], GRANTS}
teams: TEAMS
stores: {counters: "memory:"}
"""
NARROW_KEY = "sk-gw-narrow"
GRANTED = ("granted", "team", "matched")  # names that the consumer `narrow` asks for
NAMES = ("named", "wild-1", "wild-2", "chain", "nested", "keyed", "moved")
OLD, NEW = "{at_old}", "{at_new}"


class State:
    """The settings of the moment: what is not given stays."""

    def __init__(self, folder: Path, servers: str) -> None:
        key = f', api_key: "file:{folder}/key"'
        self.providers = {"old": (OLD, ""), "there": (OLD, ""), "secret": (OLD, key)}
        self.kinds: dict[str, str] = {}  # where it is not the mock's
        self.models = {"named": "old", "wild-*": "old", "keyed": "secret", "part": "old", "moved": "there"}
        self.models |= dict.fromkeys(("part-a", "part-b", "part-c"), "old")
        self.virtual = {"chain": ["part"], "nested": ["chain"], "granted": ["part-a"], "team": ["part-b"]}
        self.virtual["matched"] = ["part-c, match: {team: first}"]
        self.grants = "team: first, models: [part-a, part-b, part-c, granted, team, matched]"
        self.teams = "{first: {models: [granted, team, matched, part-*]}}"
        self.servers = {"one": f"{servers}/one"}
        self.shares = "one: {prefix: ''}"

    def text(self) -> str:
        lists = {
            "PROVIDERS": "".join(
                PROVIDER.format(name=name, kind=self.kinds.get(name, "mock"), url=url, more=more)
                for name, (url, more) in self.providers.items()
            ),
            "MODELS": "".join(f'  "{name}": {{provider: {where}}}\n' for name, where in self.models.items()),
            "VIRTUAL": "".join(
                f"  {name}: {{targets: [{', '.join(f'{{model: {each}}}' for each in targets)}]}}\n"
                for name, targets in self.virtual.items()
            ),
            "SERVERS": "".join(f'    {name}: {{url: "{url}", refresh: 1s}}\n' for name, url in self.servers.items()),
            "SHARES": self.shares,
            "GRANTS": self.grants,
            "TEAMS": self.teams,
        }
        text = SETTINGS
        for place, value in lists.items():
            text = text.replace(place, value)
        return text


class Traffic:
    """A client for each name, and one that calls a tool: `failed` counts what they got instead of an answer."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._ended = gateway, threading.Event()
        self.failed: Counter[tuple[str, str]] = Counter()
        self.answered: Counter[str] = Counter()
        self.provider: defaultdict[str, str] = defaultdict(str)
        asked = [(name, KEY) for name in NAMES] + [(name, NARROW_KEY) for name in GRANTED]
        self._threads = [threading.Thread(target=self._ask, args=each) for each in asked]
        self._threads.append(threading.Thread(target=self._call))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, name: str, key: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(trust_env=False, timeout=20, headers=headers) as client:
            while not self._ended.wait(0.05):
                try:
                    answer = client.post(self._gateway.base_url + "/chat/completions", json=chat_body(name))
                except httpx.HTTPError as error:
                    self.failed[name, repr(error)] += 1
                    continue
                self.answered[name] += 1
                if answer.status_code != 200:
                    self.failed[name, answer.text] += 1
                self.provider[name] = answer.headers.get("x-ai-provider", "")

    def _call(self) -> None:
        client = Client(self._gateway, "dev")
        while not self._ended.wait(0.05):
            answer = client.call("echo", text="x")
            self.answered["echo"] += 1
            if "error" in answer or answer["result"].get("isError"):
                self.failed["echo", str(answer)] += 1


@pytest.fixture
def servers() -> Iterator[McpServers]:
    made = [McpServer(name, tools=[tool("echo"), tool("other")]) for name in ("one", "two")]
    with McpServers(*made).running() as found:
        yield found


@pytest.fixture
def state(servers: McpServers, tmp_path: Path) -> State:
    (tmp_path / "key").write_text("sk-before")
    return State(tmp_path, servers.url)


@pytest.fixture
def gateway(state: State, tmp_path: Path) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path, state.text(), ("old", "new"), {"NARROW_KEY": NARROW_KEY})


@pytest.fixture
def traffic(gateway: Gateway) -> Iterator[Traffic]:
    eventually(lambda: "echo" in [each["name"] for each in tools(gateway)])
    traffic = Traffic(gateway)
    yield traffic
    traffic.end()


def test_no_request_fails_while_reloads_move_what_names_lead_to(
    state: State, gateway: Gateway, traffic: Traffic, servers: McpServers
) -> None:
    """Run it with -s: it prints the seconds from each change to its effect."""
    head = gateway.file.read_text().partition("providers:")[0]
    for kinds in ROUNDS:
        begun = time.monotonic()
        seen = {kind.__name__: kind(state, gateway, traffic, servers) for kind in kinds}
        text = head + state.text()
        for name, url in gateway.mocks.items():
            text = text.replace("{at_" + name + "}", url)
        gateway.file.write_text(text)
        for name, done in seen.items():
            eventually(done)
            print(f"{name}: {time.monotonic() - begun:.1f} s")  # noqa: T201
        eventually(lambda: gateway.http.get(gateway.status + "/readyz").text == "ok\n")
        assert not traffic.failed, kinds
    traffic.end()
    assert not traffic.failed
    assert min(traffic.answered[name] for name in (*NAMES, *GRANTED, "echo")) > 20


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(3))
def test_no_request_fails_while_settings_change_at_random(
    state: State, gateway: Gateway, traffic: Traffic, seed: int
) -> None:
    """Also where a change comes before Envoy has the one before it."""
    chance = random.Random(seed)
    head, _, rest = gateway.file.read_text().partition("providers:")
    key = rest.partition('api_key: "')[2].partition('"')[0]
    for number in range(40):
        move_at_random(chance, state, f', api_key: "{key}"')
        text = head + state.text() + chance.choice(MORE) + f"limits: {{request_body: {chance.randint(1, 4)}MiB}}\n"
        for name, url in gateway.mocks.items():
            text = text.replace("{at_" + name + "}", url)
        gateway.file.write_text(text)
        if number % 4 == 3:
            eventually(lambda: gateway.http.get(gateway.status + "/readyz").text == "ok\n")
        else:
            time.sleep(chance.choice([0.3, 0.7, 1.2, 2, 3]))  # while Envoy gets it
        assert not traffic.failed, text
    traffic.end()
    assert not traffic.failed
    assert min(traffic.answered[name] for name in (*NAMES, *GRANTED, "echo")) > 20


MORE = (
    "",
    "guardrails: [{name: g, kind: regex, patterns: {x: secret}, on: [input, output], action: block}]\n",
    "budgets: [{name: b, per: [consumer], unit: requests, limit: 1000000, window: hour}]\n",
)


def move_at_random(chance: random.Random, state: State, key: str) -> None:
    """Other providers, and every name at one of them: as a model, under a wildcard, or in a chain."""
    places = [f"p{number}" for number in range(chance.randint(2, 5))]
    more = (key, f"{key}, timeout: 50s", f"{key}, headers: {{x-a: b}}", f"{key}, max_requests: 500")
    state.providers = {name: (chance.choice([OLD, NEW]), chance.choice(more)) for name in (*places, "secret")}
    state.kinds = {name: chance.choice(["mock", "openai", "anthropic"]) for name in places}
    parts = [f"part-{number}" for number in range(chance.randint(1, 3))]
    granted = ["part-a", "part-b", "part-c"]
    own = [name for name in ("named", "wild-1", "moved") if chance.random() < 0.6]
    wildcard = chance.choice(["wild-*", "wil*", "w*"])
    state.models = {name: chance.choice(places) for name in (*own, *parts, *granted, wildcard)}
    state.models["keyed"] = "secret"
    state.virtual |= {"chain": chance.sample(parts, chance.randint(1, len(parts))), "nested": ["chain"]}
    for name in ("named", "moved"):
        state.virtual.pop(name, None)
        if name not in own:
            state.virtual[name] = [chance.choice(["chain", "nested", *parts])]


def tools(gateway: Gateway) -> Any:
    return Client(gateway, "dev").ask("tools/list")["result"]["tools"]


Done = Callable[[], bool]


def add(state: State, name: str) -> None:
    state.providers[name] = (NEW, "")


def new_provider_under_a_name(state: State, _gateway: Gateway, traffic: Traffic, _servers: McpServers) -> Done:
    add(state, "p1")
    state.models["named"] = "p1"
    return lambda: traffic.provider["named"] == "p1"


def wildcard_becomes_named(state: State, _gateway: Gateway, traffic: Traffic, _servers: McpServers) -> Done:
    add(state, "p2")
    state.models["wild-1"] = "p2"
    return lambda: traffic.provider["wild-1"] == "p2"


def wildcard_under_a_wildcard(state: State, _gateway: Gateway, traffic: Traffic, _servers: McpServers) -> Done:
    add(state, "p3")
    del state.models["wild-*"]
    state.models["wil*"] = "p3"
    return lambda: traffic.provider["wild-2"] == "p3"


def chain_gains_a_provider(state: State, _gateway: Gateway, traffic: Traffic, _servers: McpServers) -> Done:
    add(state, "p4")
    state.models["part-4"] = "p4"
    del state.models["part"]
    state.virtual["chain"] = ["part-4"]
    return lambda: traffic.provider["chain"] == traffic.provider["nested"] == "p4"


def name_becomes_a_chain(state: State, _gateway: Gateway, traffic: Traffic, _servers: McpServers) -> Done:
    add(state, "p5")
    del state.models["named"]
    state.models["part-5"] = "p5"
    state.virtual["named"] = ["part-5", "part-4"]
    return lambda: traffic.provider["named"] == "p5"


def address_changes(state: State, gateway: Gateway, _traffic: Traffic, _servers: McpServers) -> Done:
    state.providers["there"] = (NEW, "")
    return lambda: any(seen["body"]["model"] == "moved" for seen in gateway.seen("new"))


def provider_is_removed(state: State, _gateway: Gateway, traffic: Traffic, _servers: McpServers) -> Done:
    add(state, "p6")
    del state.providers["there"]
    state.models["moved"] = "p6"
    return lambda: traffic.provider["moved"] == "p6"


def old_ones_are_switched_off(state: State, _gateway: Gateway, traffic: Traffic, _servers: McpServers) -> Done:
    """A provider, a model, and a target, each with nothing else to serve its name until Envoy has the new one."""
    add(state, "p8")
    state.providers["p6"] = (NEW, ", disabled: true")
    state.models["moved"] = "p8"
    state.models["part-4"] = "p4, disabled: true"
    state.models["part-8"] = "p8"
    state.virtual["chain"] = ["part-8", "part-4"]
    state.virtual["named"] = ["part-8", "part-5, disabled: true"]
    return lambda: {traffic.provider[name] for name in ("moved", "chain", "nested", "named")} == {"p8"}


def key_changes(state: State, gateway: Gateway, _traffic: Traffic, _servers: McpServers) -> Done:
    key = gateway.file.parent / "another-key"
    key.write_text("sk-after")
    state.providers["secret"] = (OLD, f', api_key: "file:{key}"')
    return lambda: any(dict(seen["headers"]).get("authorization") == "Bearer sk-after" for seen in gateway.seen("old"))


def grants_move(state: State, _gateway: Gateway, traffic: Traffic, _servers: McpServers) -> Done:
    """With the targets of a consumer's names, its grants change, those of its team, and the team itself."""
    add(state, "p7")
    for name in ("part-a", "part-b", "part-c"):
        del state.models[name]
    state.models |= dict.fromkeys(("to-a", "to-b", "to-c"), "p7")
    state.virtual |= {"granted": ["to-a"], "team": ["to-b"], "matched": ["to-c, match: {team: second}"]}
    state.grants = "team: second, models: [to-a, to-b, to-c, granted, team, matched]"
    state.teams = "{second: {models: [granted, team, matched, to-*]}}"
    return lambda: {traffic.provider[name] for name in GRANTED} == {"p7"}


def server_is_added(state: State, gateway: Gateway, _traffic: Traffic, servers: McpServers) -> Done:
    state.servers["two"] = f"{servers.url}/two"
    state.shares = "one: {prefix: ''}, two: {}"
    return lambda: "two__echo" in [each["name"] for each in tools(gateway)]


ROUNDS = (
    (new_provider_under_a_name, wildcard_becomes_named, chain_gains_a_provider, address_changes),
    (wildcard_under_a_wildcard, name_becomes_a_chain, provider_is_removed),
    (old_ones_are_switched_off,),
    (key_changes, server_is_added),
    (grants_move,),
)
