"""Reloads against an Envoy that is a few lines here: what it gets and when, and what the processor uses meanwhile."""

import asyncio
import hashlib
import json
import sys
from pathlib import Path

import pytest

from extproc.envoy import resources
from extproc.envoy.resources import Made, place
from extproc.envoy.server import reload
from extproc.envoy.server.discovery import CLUSTERS, KINDS, LISTENERS, Discovery, EnvoyAwayError, EnvoyRefusedError
from extproc.envoy.server.reload import Reloads
from extproc.routing.catalog import Catalog
from extproc.settings import bound, config
from extproc.wire.outbound.helper import Helper
from extproc.wire.pb import extproc_pb2 as pb

SETTINGS = """
providers:
  a: {{kind: openai, base_url: "http://a.test/{path}", api_key: "file:{folder}/a"{off}}}
  {providers}
models:
  m: {{provider: {m}}}
consumers:
  - {{name: one, disabled: {disabled}, keys: [{{file: "{folder}/key"}}]}}
limits: {{stream_duration: 60s}}
stores: {{counters: "{counters}"}}
"""
OFF = ", disabled: true"
B = "b: {kind: mock, base_url: 'http://b.test/v1'}"


class Process:
    """What a reload tells the processor."""

    def __init__(self) -> None:
        self.settings = self.places = None
        self.takes = 0
        self.outcomes: list[str] = []
        self.stale = ""

    def apply_settings(self, settings, places):
        self.settings, self.places, self.takes = settings, dict(places), self.takes + 1

    def refusal_of(self, settings):
        return "never" if "never" in settings.virtual_models else ""

    def report(self, outcome, stale):
        self.outcomes += [outcome] if outcome else []
        self.stale = stale


def leads(settings):
    """The provider to which the name `m` leads."""
    catalog = Catalog(settings.providers, settings.models, settings.virtual_models, before=settings.before)
    return catalog.target("m").provider


BEGIN = Helper.begin


def serves(settings):
    """Whether anything can serve the name `m`."""
    catalog = Catalog(settings.providers, settings.models, settings.virtual_models, before=settings.before)
    return any(catalog.unavailable(target) is None for target in catalog.resolve("m").targets)


class Envoy:
    """Asks for every kind, and takes what it gets unless a name of it is in `dislikes`."""

    def __init__(self, discovery: Discovery) -> None:
        self.has: dict[str, list[str]] = {}
        self.got: list[str] = []  # kinds, in order
        self.dislikes: set[str] = set()
        calls = list(discovery.calls().values())
        self.tasks = [asyncio.create_task(self.follow(kind, call)) for kind, call in zip(KINDS, calls, strict=False)]

    async def follow(self, kind, open_call):
        call = open_call({})
        request = pb.DiscoveryRequest()
        try:
            while not call.done:
                for answer in await call.on_message(request.SerializeToString()):
                    found = pb.DiscoveryResponse.FromString(answer)
                    names = [each.value.decode() for each in found.resources]
                    request = pb.DiscoveryRequest(response_nonce=found.nonce)
                    if bad := self.dislikes.intersection(names):
                        request.error_detail.message = f"no\n{bad.pop()}"
                    else:
                        self.has[kind] = names
                        self.got.append(kind)
        finally:
            await call.on_end()

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class World:
    """A settings file, the process that follows it, and its Envoy."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "gateway.yaml"
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        (folder / "a").write_text("sk-a")
        (folder / "key").write_text("sk-gw-1")
        self.process = Process()
        self.write()

    def write(self, *, path="v1", providers="", m="a", disabled="false", counters="memory:", off="", more=""):
        parts = {"path": path, "providers": providers, "m": m, "disabled": disabled, "counters": counters, "off": off}
        self.file.write_text(SETTINGS.format(folder=self.folder, **parts) + more)

    def begin(self, process=None, worker=0, first=None) -> Reloads:
        settings = config.load(self.file)
        if first is not None:
            settings = bound.fixed(settings, config.parse(first))
        return Reloads(process or self.process, self.file, settings, secrets=self.secrets, worker=worker, first=first)

    def prepare(self) -> None:
        settings = config.load(self.file)
        resources.write(resources.file(self.secrets), made(settings, self.file.read_text(), None))

    def secret(self, stem: str) -> str:
        [found] = json.loads((self.secrets / f"{stem}.yaml").read_text())["resources"]
        return found["generic_secret"]["secret"]["inline_string"]


def made(settings, text, before):
    """As `envoy_config.dynamic.make` does it, with messages that are their own names."""
    digests = {
        name: hashlib.blake2b(str(provider.base_url).encode(), digest_size=4).hexdigest()
        for name, provider in settings.providers.items()
    }
    places = {name: place(name, digest, before) for name, digest in digests.items()}
    tries = {name: name.encode() for name in places.values()}
    public = {"public": f"public {settings.limits.request_body}".encode()}
    return Made(
        bound.digest(settings), text, places, digests, dict(tries), {**public, **tries}, {"public": b"routes"}, {}
    )


@pytest.fixture
def world(tmp_path, monkeypatch):
    async def make(self):
        return made(self._wanted, self._text, self._before)

    monkeypatch.setattr(Reloads, "_make_resources", make)
    monkeypatch.setattr(Helper, "begin", lambda _helper: None)  # nothing would ask it
    monkeypatch.setattr(reload, "_WITHIN", 0.2)
    monkeypatch.setattr(reload, "_WARM", 0.0)
    monkeypatch.setattr(reload, "_AGAIN", 0.0)
    return World(tmp_path)


@pytest.fixture
async def running(world):
    """Reloads of a process with an Envoy that has what was prepared."""
    world.prepare()
    reloads = world.begin()
    await reloads.start()
    envoy = Envoy(reloads.discovery)
    await asyncio.sleep(0)
    await reloads.discovery.offer(LISTENERS, reloads._given[LISTENERS], 1)
    envoy.got.clear()
    yield reloads, envoy
    await envoy.leave()


async def test_envoy_gets_clusters_and_then_listeners_before_a_provider_is_used(world, running):
    reloads, envoy = running
    world.write(providers=B, m="b", disabled="true")
    seen = []
    taking = world.process.apply_settings
    world.process.apply_settings = lambda settings, places: (
        seen.append((settings, len(envoy.got))),
        taking(settings, places),
    )
    await reloads.look()
    assert envoy.got == [CLUSTERS, LISTENERS]
    (partial, before), (whole, after) = seen
    assert (before, after) == (0, 2)
    assert partial.consumers[0].disabled
    assert leads(partial) == "a", "it stays where it was until Envoy has the provider"
    assert leads(whole) == "b"
    assert world.process.places == {"a": "try-a", "b": "try-b"}
    assert (world.process.outcomes, world.process.stale) == (["taken"], "")


async def test_a_change_that_envoy_has_nothing_of_is_taken_at_once(world, running):
    reloads, envoy = running
    world.write(disabled="true")
    await reloads.look()
    assert (world.process.takes, world.process.outcomes, envoy.got) == (1, ["taken"], [])
    for more, reason in (
        ("bugets: []", "there is no such setting; did you mean 'budgets'?"),
        ("virtual_models: {never: {targets: [{model: m}]}}", "never"),
    ):
        world.write(more=more)
        await reloads.look()
        assert reason in world.process.stale
    assert (world.process.takes, world.process.outcomes[1:]) == (1, ["refused", "refused"])


async def test_a_changed_provider_has_another_name_and_a_secret_of_its_own_until_nothing_needs_the_old_one(
    world, running
):
    reloads, envoy = running
    resources_before = reloads.places
    (world.secrets / "a.yaml").write_text('{"resources": [{"generic_secret": {"secret": {"inline_string": "sk-a"}}}]}')
    (world.folder / "a").write_text("sk-other")
    world.write(path="v2")
    await reloads.look()
    new = world.process.places["a"]
    assert (resources_before["a"], new.startswith("try-a~")) == ("try-a", True)
    assert set(envoy.has[LISTENERS]) >= {"try-a", new}
    assert reloads.stem("a") == new.removeprefix("try-")
    assert world.secret("a") == "sk-a", "the new key would reach the old address"
    assert world.secret(reloads.stem("a")) == "sk-other"

    await reloads.look()
    assert "try-a" in envoy.has[CLUSTERS]
    reloads._leaving = dict.fromkeys(reloads._leaving, 0.0)  # the longest stream is over
    envoy.got.clear()
    await reloads.look()
    assert envoy.got == [LISTENERS, CLUSTERS]
    assert "try-a" not in envoy.has[LISTENERS] + envoy.has[CLUSTERS]
    assert not (world.secrets / "a.yaml").exists()


async def test_a_provider_that_comes_back_at_another_address_does_not_replace_the_one_still_there(world, running):
    reloads, envoy = running
    for providers in (B, "", B.replace("b.test", "other.test")):
        world.write(providers=providers)
        await reloads.look()
    assert world.process.places["b"].startswith("try-b~")
    assert set(envoy.has[LISTENERS]) >= {"try-b", world.process.places["b"]}


async def test_what_envoy_refuses_is_taken_back_and_the_rest_of_the_change_applies(world, running):
    reloads, envoy = running
    envoy.dislikes = {"try-b"}
    world.write(providers=B, m="b", disabled="true")
    await reloads.look()
    assert world.process.stale == "changes of providers.b, models.m wait: Envoy refuses them: no try-b"
    assert world.process.outcomes == ["partial"]
    assert world.process.settings.consumers[0].disabled
    assert leads(world.process.settings) == "a"
    assert reloads._given[CLUSTERS].keys() == {"try-a"}
    assert envoy.has[CLUSTERS] == ["try-a"]
    await reloads.look()
    assert world.process.outcomes == ["partial"], "it is not asked again soon"
    world.write()
    await reloads.look()
    assert (world.process.outcomes, world.process.stale) == (["partial", "taken"], "")
    envoy.dislikes.clear()
    world.write(providers=B)
    await reloads.look()
    assert world.process.outcomes[-1] == "taken"


@pytest.mark.parametrize("why", ["refused", "slow"])
async def test_a_switch_waits_for_envoy_for_some_seconds_alone(world, running, monkeypatch, why):
    """Where nothing else could serve the name `m` meanwhile."""
    reloads, envoy = running
    seen = []

    async def make(self):
        seen.append(serves(world.process.settings))
        await asyncio.sleep(0.2 if why == "slow" else 0)
        seen.append(serves(world.process.settings))
        return made(self._wanted, self._text, self._before)

    monkeypatch.setattr(reload, "_LOOK", 0.01)
    monkeypatch.setattr(reload, "_PATIENCE", 0.05)
    monkeypatch.setattr(Reloads, "_make_resources", make)
    envoy.dislikes = {"try-b"}
    world.write(providers=B, m="b", off=OFF)
    await reloads.look()
    assert seen == [True, why == "refused"]
    assert not serves(world.process.settings)
    envoy.dislikes.clear()
    monkeypatch.setattr(reload, "_PATIENCE", 60)
    world.write(providers=B, m="b", off=OFF, more="\n")
    await reloads.look()
    assert (serves(world.process.settings), leads(world.process.settings)) == (True, "b")


async def test_envoy_gets_again_after_a_while_what_it_refused(world, running, monkeypatch):
    monkeypatch.setattr(reload, "_REFUSED", 0.0)
    reloads, envoy = running
    envoy.dislikes = {"try-b"}  # for want of a file, for example
    world.write(providers=B, m="b")
    for _ in range(2):
        await reloads.look()
        assert (world.process.outcomes, "Envoy refuses them" in world.process.stale) == (["partial"], True)
    envoy.dislikes.clear()
    await reloads.look()
    assert (world.process.outcomes, world.process.stale) == (["partial", "taken"], "")
    assert leads(world.process.settings) == "b"


async def test_settings_that_could_not_be_taken_are_tried_again(world, running, monkeypatch):
    reloads, _ = running
    taking = world.process.apply_settings
    broken = [OSError("once")]

    def take(settings, places):
        if broken:
            raise broken.pop()
        taking(settings, places)

    world.process.apply_settings = take
    world.write(disabled="true")
    with pytest.raises(OSError, match="once"):
        await reloads.look()
    await reloads.look()
    assert world.process.settings.consumers[0].disabled
    assert world.process.outcomes == ["taken"]


async def test_without_envoy_everything_else_applies_and_the_rest_follows_when_it_is_back(world):
    world.prepare()
    reloads = world.begin()
    await reloads.start()
    world.write(providers=B, m="b", disabled="true", counters="sqlite:c.db")
    await reloads.look()
    assert world.process.settings.consumers[0].disabled
    assert leads(world.process.settings) == "a"
    fixed, _, waits = world.process.stale.partition("; ")
    assert fixed == "changes of stores bind at a restart"
    assert waits.startswith("changes of providers.b, models.m wait: this Envoy has its configuration from a file")
    good = world.file.read_text()
    world.file.write_text(good + "bugets: []")
    await reloads.look()
    envoy = Envoy(reloads.discovery)
    for _ in range(20):
        await asyncio.sleep(0.01)
        await reloads.look()
    assert leads(world.process.settings) == "b"
    assert ("did you mean" in world.process.stale, fixed in world.process.stale) == (True, True)
    world.file.write_text(good)
    await reloads.look()
    assert (world.process.stale, world.process.outcomes) == (fixed, ["partial", "refused", "partial", "partial"])
    assert world.process.settings.stores.counters == "memory:"
    await envoy.leave()


async def test_an_envoy_that_asks_and_for_which_nothing_was_prepared_gets_the_settings(world):
    reloads = world.begin()
    await reloads.start()
    envoy = Envoy(reloads.discovery)
    await asyncio.sleep(0)
    await reloads.look()
    await asyncio.sleep(0.01)
    assert "try-a" in envoy.has[LISTENERS]
    assert resources.read(resources.file(world.secrets)).places == {"a": "try-a"}
    await envoy.leave()


async def test_a_process_that_starts_with_other_settings_begins_with_what_envoy_has(world):
    world.prepare()
    world.write(providers=B, m="b", disabled="true")
    reloads = world.begin()
    await reloads.start()
    assert leads(world.process.settings) == "a"
    assert world.process.settings.consumers[0].disabled
    envoy = Envoy(reloads.discovery)
    for _ in range(3):
        await asyncio.sleep(0)
        await reloads.look()
    assert (leads(world.process.settings), world.process.stale) == ("b", "")
    assert "try-b" in envoy.has[CLUSTERS]
    await envoy.leave()


async def test_another_worker_follows_when_the_first_has_told_envoy(world, running):
    first, _ = running
    process = Process()
    second = world.begin(process, worker=1)
    await second.start()
    world.write(providers=B, m="b")
    await second.look()
    assert leads(process.settings) == "a"
    assert process.stale == "changes of providers.b, models.m wait: Envoy has not got them yet"
    await first.look()
    await second.look()
    assert (leads(process.settings), process.stale, process.places) == ("b", "", world.process.places)


async def test_a_worker_that_starts_again_keeps_what_binds_at_a_start_and_says_so(world, running):
    reloads, _ = running
    first = world.file.read_text()
    world.write(counters="sqlite:other.db", disabled="true")
    await reloads.look()
    process = Process()
    again = world.begin(process, worker=1, first=first)
    await again.start()
    await again.look()
    assert process.settings.consumers[0].disabled
    assert process.settings.stores.counters == world.process.settings.stores.counters == "memory:"
    assert process.stale == world.process.stale == "changes of stores bind at a restart"
    world.write(disabled="true")
    await again.look()
    assert process.stale == ""


async def test_a_changed_or_removed_file_of_a_consumers_key_is_read_again(world, running):
    reloads, _ = running
    for change in (
        lambda key: key.write_text("sk-gw-longer"),
        lambda key: key.unlink(),
        lambda key: key.write_text("x"),
    ):
        takes = world.process.takes
        await reloads.look()
        assert world.process.takes == takes
        change(world.folder / "key")
        await reloads.look()
        assert world.process.takes == takes + 1


async def test_the_file_of_the_key_of_kept_objects_is_read_again(world):
    key = world.folder / "object-key"
    key.write_text("one")
    before = world.file.read_text()
    world.file.write_text(before.replace("stores: {", f"stores: {{object_key: 'file:{key}', "))
    assert world.file.read_text() != before
    reloads = Reloads(world.process, world.file, config.load(world.file), secrets=None)
    key.write_text("another")
    takes = world.process.takes
    await reloads.look()
    assert world.process.takes == takes + 1


async def test_a_key_that_changes_while_new_settings_are_taken_is_read_again(world, running):
    reloads, _ = running
    taking = world.process.apply_settings

    def take(settings, places):
        taking(settings, places)
        (world.folder / "key").write_text("sk-gw-longer")

    world.process.apply_settings = take
    world.write(disabled="true")
    await reloads.look()
    world.process.apply_settings = taking
    takes = world.process.takes
    await reloads.look()
    assert world.process.takes == takes + 1


async def test_settings_that_name_another_file_are_taken_once(world, running):
    reloads, _ = running
    takes = world.process.takes
    world.file.write_text(world.file.read_text().replace("/key", "/other"))
    for _ in range(3):
        await reloads.look()
    assert world.process.takes == takes + 1


async def test_a_change_does_not_wait_for_an_earlier_one_that_takes_long(world, running, monkeypatch):
    reloads, _ = running
    asked, make = asyncio.Event(), Reloads._make_resources
    monkeypatch.setattr(reload, "_LOOK", 0.01)

    async def never(_self):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Reloads, "_make_resources", never)
    world.write(providers=B, m="b")
    looking = asyncio.create_task(reloads.look())
    await asked.wait()
    takes = world.process.takes
    (world.folder / "key").write_text("sk-gw-longer")
    while world.process.takes == takes:  # its file is read meanwhile
        await asyncio.sleep(0.01)
    assert not looking.done()
    world.write(providers=B, m="b", disabled="true")
    await asyncio.wait_for(looking, 10)
    monkeypatch.setattr(Reloads, "_make_resources", make)
    await reloads.look()
    assert world.process.settings.consumers[0].disabled
    assert (leads(world.process.settings), world.process.stale) == ("b", "")


async def test_a_stream_ends_when_the_process_leaves_and_none_is_connected_then():
    discovery = Discovery()
    discovery.set(CLUSTERS, {"x": b"x"})
    with pytest.raises(EnvoyAwayError):
        await discovery.offer(CLUSTERS, {"y": b"y"}, 0.01)
    envoy = Envoy(discovery)
    await discovery.offer(CLUSTERS, {"y": b"y"}, 1)
    assert (discovery.connected, envoy.has[CLUSTERS]) == (True, ["y"])
    envoy.dislikes = {"z"}
    with pytest.raises(EnvoyRefusedError, match="no z"):
        await discovery.offer(CLUSTERS, {"z": b"z"}, 1)
    discovery.leave()
    await asyncio.wait_for(asyncio.gather(*envoy.tasks), 1)
    assert not discovery.connected


# --- large settings


LARGE = "# " + "x" * reload._LARGE + "\n"


async def test_large_settings_are_read_by_another_process_and_stale_meanwhile(world, running, monkeypatch):
    reloads, _ = running
    monkeypatch.setattr(config, "parse", None)  # not here
    world.write(disabled="true", more=LARGE + "prices: [{from: 2027-01-31, model: m, input: 1, output: 2.5}]\n")
    told = []
    taking = world.process.report
    world.process.report = lambda outcome, stale: (told.append((outcome, stale)), taking(outcome, stale))
    await reloads.look()
    assert world.process.settings.consumers[0].disabled
    assert told == [("", "a change of the file is being read"), ("taken", "")]


async def test_the_next_change_of_large_settings_finds_a_process_that_has_begun(world, running, monkeypatch):
    reloads, _ = running
    monkeypatch.setattr(Helper, "begin", BEGIN)
    begun = set()
    for number in range(3):
        world.write(disabled="true", more=f"{LARGE}# {number}\n")
        await reloads.look()
        begun.add(reloads._reading.pid)
    assert None not in begun
    assert len(begun) == 3  # one that has read has much memory
    world.write(disabled="true")
    await reloads.look()
    assert reloads._reading.pid is None


async def test_every_error_of_large_settings_has_its_place(world, running):
    reloads, _ = running
    world.write(m="nowhere", more=LARGE + "nonsense: 1\n")
    await reloads.look()
    assert world.process.outcomes == ["refused"]
    assert f"{world.file}:" in world.process.stale
    assert "nonsense: there is no such setting" in world.process.stale
    world.write(m="nowhere", more=LARGE)
    await reloads.look()
    assert "there is no provider 'nowhere'" in world.process.stale


async def test_large_settings_that_change_while_they_are_read_are_read_anew(world, running, monkeypatch):
    reloads, _ = running
    monkeypatch.setattr(reload, "_LOOK", 0.001)
    world.write(disabled="true", more=LARGE)
    task = asyncio.create_task(reloads.look())
    while not world.process.stale:
        await asyncio.sleep(0.001)
    world.write(disabled="false", more=LARGE + "# other\n")
    await task
    assert world.process.takes == 0
    await reloads.look()
    assert not world.process.settings.consumers[0].disabled
    assert world.process.stale == ""


async def test_a_stop_ends_the_reading_of_large_settings(world, running, monkeypatch):
    reloads, _ = running
    monkeypatch.setattr(reloads._reading, "_command", (sys.executable, "-c", "import time; time.sleep(3600)"))
    world.write(disabled="true", more=LARGE)
    task = asyncio.create_task(reloads.look())
    while (begun := reloads._reading.pid) is None:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        while Path(f"/proc/{begun}").exists():
            await asyncio.sleep(0.01)
    assert reloads._reading.pid is None


async def test_a_process_that_cannot_read_large_settings_is_reported(world, running, monkeypatch):
    reloads, _ = running
    monkeypatch.setattr(reloads._reading, "_within", 0.001)
    world.write(disabled="true", more=LARGE)
    await reloads.look()
    assert world.process.outcomes == ["refused"]
    assert world.process.stale == "they cannot be read: it took longer than 0 s"
