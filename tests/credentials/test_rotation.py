"""Keys that rotate and tokens that are fetched, as they appear in Envoy's files."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from extproc.settings import checks
from extproc.settings.config import parse
from extproc.settings.document import ConfigError
from extproc.upstream.credentials import oauth, rotation
from extproc.upstream.credentials.oauth import OAuthToken, TokenError
from extproc.upstream.credentials.rotation import Keeper, holds, secret_file, secret_name, watch, write_secret
from extproc.upstream.providers import Credential

CANARY = "canary-4b1d"
MODELS = "models: {m: {provider: p}}"
ENTRA = "{azure: {tenant: t, client_id: c, client_secret: 'file:%s'}}"
CLOUD = "{kind: azure_openai, base_url: https://acme.openai.azure.com, credentials: %s}"


class World:
    """A keeper of one provider `p`, with a clock and a token endpoint that follow the test."""

    def __init__(self, place: Path) -> None:
        self.reference = place / "reference"
        self.reference.write_text(f"{CANARY}-1")
        self.directory = place / "secrets"
        self.now = 1000.0
        self.asked: list[str] = []
        self.answers: list[object] = []
        self.counted: list[tuple[str, str]] = []
        self.keyed = self.settings(f"{{kind: openai, api_key: 'file:{self.reference}'}}")
        self.clouded = self.settings(CLOUD % (ENTRA % self.reference))
        self.start()

    @staticmethod
    def settings(provider: str):
        return parse(f"providers: {{p: {provider}}}\n{MODELS}").providers

    def start(self) -> None:
        """Start a new process."""
        self.keeper = Keeper(
            self.directory,
            lambda *labels: self.counted.append(labels),
            fetch=self.fetch,
            clock=lambda: self.now,
        )

    async def fetch(self, credentials, secret, now):
        """The next answer of the script: a token's lifetime in seconds, an error, or an event to wait for."""
        self.asked.append(secret)
        answer = self.answers.pop(0)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            answer = 3600.0
        if isinstance(answer, BaseException):
            raise answer
        return OAuthToken(f"{CANARY}-token-{len(self.asked)}", now + answer)

    async def look(self, settings=None) -> bool:
        """Two checks of the keeper: the first asks, the second sees the answer."""
        settings = self.clouded if settings is None else settings
        changed = await self.keeper.look(settings)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await self.keeper.look(settings) or changed

    @property
    def file(self) -> Path:
        return Path(secret_file(self.directory, "p"))

    @property
    def secret(self) -> str:
        (resource,) = json.loads(self.file.read_text())["resources"]
        assert resource["name"] == secret_name("p")
        found: str = resource["generic_secret"]["secret"]["inline_string"]
        return found.removeprefix(f"{CANARY}-")


@pytest.fixture
def world(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(oauth.random, "uniform", lambda _low, high: high)
    with caplog.at_level(logging.DEBUG):
        yield World(tmp_path)
    assert CANARY not in caplog.text


# --- keys


async def test_a_key_in_a_file_rotates_and_is_revoked(world):
    assert await world.look(world.keyed)  # the first check: missing keys were not known before
    assert world.secret == "1"
    world.reference.write_text(f"{CANARY}-2\n")
    assert await world.look(world.keyed)
    assert not await world.look(world.keyed)
    assert world.secret == "2"
    world.reference.unlink()
    assert await world.look(world.keyed)
    assert world.secret == ""
    assert not await world.look(world.keyed)
    world.reference.write_text(f"{CANARY}-3")
    assert await world.look(world.keyed)
    assert world.secret == "3"
    assert world.counted == [("p", "ok"), ("p", "ok"), ("p", "missing"), ("p", "ok")]


async def test_the_swap_of_a_mounted_secret_rotates_the_key(world, tmp_path):
    """The kubelet replaces a link to a directory in one step."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(f"{CANARY}-{version}")
    (tmp_path / "data").symlink_to("1")
    settings = world.settings(f"{{kind: openai, api_key: 'file:{tmp_path}/data/key'}}")
    await world.look(settings)
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").replace(tmp_path / "data")
    await world.look(settings)
    assert world.secret == "2"


async def test_an_unchanged_key_is_not_written_again(world):
    await world.look(world.keyed)
    before = world.file.stat().st_ino
    await world.look(world.keyed)
    assert world.file.stat().st_ino == before


@pytest.mark.parametrize("text", [None, "", "rubbish", "\udcff"])
async def test_a_damaged_file_is_repaired(world, text):
    await world.look(world.keyed)
    if text is None:
        world.file.unlink()
    else:
        world.file.write_text(text, errors="surrogateescape")
    await world.look(world.keyed)
    assert world.secret == "1"


async def test_keys_of_disabled_providers_are_kept(world):
    await world.look({"p": world.keyed["p"].model_copy(update={"disabled": True})})
    assert world.secret == "1"


async def test_a_provider_without_a_key_has_no_file(world):
    await world.look(world.settings("{kind: mock}"))
    assert not world.directory.exists()


# --- tokens


async def test_the_first_token_replaces_an_empty_secret(world):
    world.answers = [wait := asyncio.Event()]
    await world.look()
    assert world.secret == ""
    wait.set()
    await world.look()
    assert world.secret == "token-1"
    assert world.asked == [f"{CANARY}-1"]
    assert world.counted == [("p", "ok")]


@pytest.mark.parametrize(("seconds", "early"), [(3600, 225), (900, 225), (400, 100), (60, 15)])
async def test_a_token_is_cached_until_some_time_before_it_expires(world, seconds, early):
    world.answers = [float(seconds), 3600.0]
    await world.look()
    world.now += seconds - early - 1
    await world.look()
    assert (len(world.asked), world.secret) == (1, "token-1")
    world.now += 2
    await world.look()
    assert (len(world.asked), world.secret) == (2, "token-2")


async def test_tokens_with_a_short_lifetime_are_not_requested_without_pause(world):
    world.answers = [0.001] * 9
    for _ in range(20):
        await world.look()
        world.now += 0.1
    assert len(world.asked) == 1


async def test_refusals_are_retried_with_growing_delays_and_the_old_token_serves_until_it_expires(world, caplog):
    world.answers = [3600.0]
    await world.look()
    refreshed = world.now = world.now + 3600 - 225 + 1
    world.answers = [TokenError("refused", "status 503")] * 1000
    times = []
    while world.now < refreshed + 600:
        before = len(world.asked)
        await world.look()
        times += [world.now - refreshed] * (len(world.asked) - before)
        left = 1000 + 3600 - world.now
        assert world.secret == ("token-1" if left > 0 else "")
        world.now += 1
    assert times[:8] == [0, 2, 6, 14, 30, 62, 122, 182]
    world.answers = [3600.0]
    world.now += 60
    await world.look()
    assert world.secret.startswith("token-")
    assert {outcome for _, outcome in world.counted} == {"ok", "refused"}
    assert "no new token (refused: status 503); the old one is good for 224 s" in caplog.text
    assert "no new token (refused: status 503); there is none" in caplog.text


async def test_a_changed_secret_is_used_at_once(world):
    """The delay after earlier failures does not apply, and the current token serves until then."""
    world.answers = [3600.0, TokenError("refused", "status 401"), 3600.0]
    await world.look()
    world.now += 3400
    await world.look()
    world.reference.write_text(f"{CANARY}-2")
    assert await world.look()
    assert not await world.look()
    assert world.asked == [f"{CANARY}-1", f"{CANARY}-1", f"{CANARY}-2"]
    assert world.secret == "token-3"


async def test_an_answer_to_an_old_secret_is_ignored(world):
    world.answers = [asyncio.Event(), 3600.0]
    await world.look()
    world.reference.write_text(f"{CANARY}-2")
    await world.look()
    assert world.secret == "token-2"


async def test_without_its_secret_a_provider_has_no_token(world):
    world.answers = [3600.0, 3600.0]
    await world.look()
    world.reference.write_text(" \n")
    assert await world.look()
    assert world.secret == ""
    assert world.counted == [("p", "ok"), ("p", "missing")]
    world.reference.write_text(f"{CANARY}-1")
    assert await world.look()
    assert world.secret == "token-2"


async def test_a_disabled_provider_has_no_token(world):
    world.answers = [3600.0, 3600.0]
    await world.look()
    off = {"p": world.clouded["p"].model_copy(update={"disabled": True})}
    assert not await world.look(off)
    assert (world.secret, len(world.asked)) == ("", 1)
    await world.look()
    assert world.secret == "token-2"


async def test_a_new_process_keeps_the_token_it_finds_until_it_has_an_answer(world):
    world.answers = [3600.0]
    await world.look()
    world.start()
    world.answers = [wait := asyncio.Event()]
    await world.look()
    assert (world.secret, len(world.asked)) == ("token-1", 2)
    wait.set()
    await world.look()
    assert world.secret == "token-2"
    world.start()
    world.answers = [TokenError("timeout", "")]
    await world.look()
    assert world.secret == ""


async def test_a_bug_in_one_refresh_does_not_stop_the_next(world):
    world.answers = [ZeroDivisionError(CANARY), 3600.0]
    await world.look()
    (state,) = world.keeper._states.values()
    assert isinstance(state.task.exception(), ZeroDivisionError)
    world.now += 61
    await world.look()
    assert world.secret == "token-2"


async def test_a_slow_endpoint_does_not_delay_the_others(world):
    world.answers = [asyncio.Event()]
    both = {"slow": world.clouded["p"], "p": world.keyed["p"]}
    await world.look(both)
    world.reference.write_text(f"{CANARY}-2")
    world.answers = [asyncio.Event()]
    await world.look(both)
    assert world.secret == "2"


# --- while the processor runs


async def until(found):
    async with asyncio.timeout(5):
        while not found():
            await asyncio.sleep(0.01)


async def test_checks_repeat_and_report_a_provider_that_newly_lacks_its_key(world, monkeypatch):
    monkeypatch.setattr(rotation, "EVERY", 0.01)
    changes = []
    task = asyncio.create_task(world.keeper.run(lambda: world.keyed, lambda: changes.append(1)))
    await until(lambda: world.file.exists() and world.secret == "1" and changes == [1])
    world.reference.unlink()
    await until(lambda: world.secret == "" and changes == [1, 1])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_token_is_written_when_it_arrives(world, monkeypatch):
    monkeypatch.setattr(rotation, "EVERY", 3600.0)
    world.answers = [wait := asyncio.Event()]
    task = asyncio.create_task(world.keeper.run(lambda: world.clouded, lambda: None))
    await until(lambda: world.file.exists() and world.asked)
    wait.set()
    await until(lambda: world.secret == "token-1")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_full_disk_is_logged_once_and_survived(world, monkeypatch, caplog):
    monkeypatch.setattr(rotation, "EVERY", 0.01)
    looks = []

    def full(*_):
        looks.append(1)
        raise OSError(28, CANARY)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        task = asyncio.create_task(world.keeper.run(lambda: world.keyed, lambda: None))
        await until(lambda: len(looks) > 3)
    await until(world.file.exists)
    assert world.secret == "1"
    assert [path.name for path in world.directory.iterdir()] == ["p.yaml"]
    assert caplog.text.count("are not kept") == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_a_stop_nothing_is_requested(world):
    world.answers = [asyncio.Event()]
    task = asyncio.create_task(world.keeper.run(lambda: world.clouded, lambda: None))
    await until(lambda: world.asked)
    (state,) = world.keeper._states.values()
    asking = state.task
    task.cancel()
    await asyncio.wait([task, asking], timeout=5)
    assert asking.cancelled()


def test_a_file_with_a_secret_is_recognised(tmp_path):
    assert not holds(tmp_path, "p", None)
    write_secret(tmp_path, "p", "x")
    assert [holds(tmp_path, "p", secret) for secret in (None, "x", "y", "")] == [True, True, False, False]


# --- settings


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse(text)
    return str(error.value)


VERTEX = "{kind: gcp_vertex_ai, project: p, region: r%s}"
AZURE = "{azure: {tenant: t, client_id: c%s}}"


@pytest.mark.parametrize(
    ("provider", "told"),
    [
        (VERTEX % ", api_key: env:KEY, credentials: {google: metadata}", "give api_key or credentials, not both"),
        (
            VERTEX % ", keys: [{api_key: env:A}], credentials: {google: metadata}",
            "give keys, or api_key, or credentials",
        ),
        (VERTEX % ", keys: [{api_key: env:A, weight: 0}]", "at least one of the keys needs a weight above 0"),
        (VERTEX % ", credentials: {}", "give google or azure"),
        (VERTEX % f", credentials: {{google: {CANARY}}}", "p.credentials.google: a secret is a reference"),
        (VERTEX % f", credentials: {{google: [{CANARY}]}}", "p.credentials.google: a secret is a reference"),
        (VERTEX % f", credentials: {AZURE % ', client_secret: env:S'}", "takes no tokens of azure"),
        ("{kind: openai, credentials: {google: metadata}}", "takes no tokens of google; give base_url"),
        (CLOUD % (AZURE % ""), "give client_secret, federated_token or managed_identity, one of them"),
        (
            CLOUD % (AZURE % ", client_secret: env:S, federated_token: env:T"),
            "give client_secret, federated_token or managed_identity, one of them",
        ),
        (CLOUD % "{azure: {tenant: a/b, client_id: c, client_secret: env:S}}", "tenant: string should match"),
        (CLOUD % (AZURE % f", client_secret: {CANARY}"), "client_secret: a secret is a reference"),
    ],
)
def test_invalid_credentials_are_refused(provider, told):
    text = refused(f"providers: {{p: {provider}}}\n{MODELS}")
    assert told in text
    assert CANARY not in text


def test_a_token_is_sent_in_the_header_for_tokens():
    keyed = World.settings("{kind: azure_openai, base_url: https://a.openai.azure.com, api_key: env:K}")["p"]
    assert keyed.credential == Credential("api-key", "")
    assert World.settings(CLOUD % (ENTRA % "/x"))["p"].credential == Credential("authorization", "Bearer ")
    assert World.settings("{kind: mock}")["p"].credential is None
    proxied = World.settings("{kind: openai, base_url: https://llm.example/v1, credentials: {google: metadata}}")["p"]
    assert proxied.credential == Credential()


@pytest.mark.parametrize(
    ("provider", "doubt"),
    [
        (VERTEX % "", "has neither api_key nor credentials: its models answer 503"),
        (VERTEX % ", credentials: {google: metadata}", None),
        (VERTEX % ", credentials: {google: file:/no/such}", "file:/no/such is not set"),
        (VERTEX % ", credentials: {google: env:NOT_A_KEY_FILE}", "env:NOT_A_KEY_FILE cannot be used (not the key file"),
        (CLOUD % (AZURE % ", client_secret: env:UNSET_FOR_SURE"), "env:UNSET_FOR_SURE is not"),
        (CLOUD % (AZURE % ", federated_token: env:NOT_A_KEY_FILE"), None),
        ("{kind: openai, api_key: env:TWO_LINES}", "env:TWO_LINES has several lines"),
    ],
)
def test_check_reports_missing_credentials(monkeypatch, provider, doubt):
    monkeypatch.setenv("NOT_A_KEY_FILE", CANARY)
    monkeypatch.setenv("TWO_LINES", f"{CANARY}\nand another")
    settings = parse(f"providers: {{p: {provider}}}\n{MODELS}")
    assert bool(settings.providers["p"].lack) is (doubt is not None and "key file" not in doubt)
    found = [message for place, message in checks.doubts(settings) if place[:2] == ("providers", "p")]
    assert [doubt in message for message in found] == ([] if doubt is None else [True])
    assert CANARY not in str(found)


async def test_a_worker_that_writes_no_keys_sees_which_are_missing(world, monkeypatch):
    monkeypatch.setattr(rotation, "EVERY", 0.01)
    changes = []
    watching = asyncio.create_task(watch(lambda: world.keyed, lambda: changes.append(bool(world.keyed["p"].lack))))
    await asyncio.sleep(0.05)
    assert changes == []
    world.reference.unlink()
    await until(lambda: changes == [True])
    world.reference.write_text(CANARY)
    await until(lambda: changes == [True, False])
    world.reference.write_text(f"{CANARY}-2")
    await until(lambda: changes[2:] and not changes[-1])  # ids of kept objects are sealed with it
    assert not world.directory.exists()
    watching.cancel()
