"""Providers' secrets while the gateway runs: keys are re-read, tokens of clouds are fetched, and both are written for
Envoy.

Envoy reads one file for each provider, from a directory that it watches for renames. Every few seconds `Keeper`
compares each provider's reference with its file. A key is written to the file directly. For other credentials a token
is requested, and requested again some minutes before it expires. An empty secret makes Envoy answer the try itself, so
that the request fails over. A provider has an empty secret before its first token, and after its key is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from extproc.upstream.credentials.oauth import LONGEST_PAUSE, OAuthToken, TokenError, fetch, pause_after
from extproc.upstream.providers import Credentials, ProviderSettings

log = logging.getLogger(__name__)

EVERY = 2.0
"""Seconds between looks at the references."""


# --- Envoy's files


# `stem` names the file of a provider's secret: the provider's name, with an addition for a changed try, so that no new
# key reaches an old address. See `envoy.resources.place`.


def secret_name(stem: str) -> str:
    return f"key-{stem}"


def secret_file(directory: str | Path, stem: str) -> str:
    return str(Path(directory) / f"{stem}.yaml")


def private_directory(directory: str | Path) -> Path:
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.chmod(0o700)
    return place


def write_secret(directory: str | Path, stem: str, secret: str) -> None:
    """Write a secret atomically. The file is never readable by other users, not even for a moment."""
    _write(Path(secret_file(directory, stem)), _resource(stem, secret))


def read_secret(directory: str | Path, stem: str) -> str:
    """The secret in Envoy's file; empty if the file is missing or unreadable."""
    with contextlib.suppress(OSError, UnicodeDecodeError, ValueError, LookupError):
        [resource] = json.loads(Path(secret_file(directory, stem)).read_text(encoding="utf-8"))["resources"]
        return str(resource["generic_secret"]["secret"]["inline_string"])
    return ""


def copy_secret(directory: str | Path, stem: str, secret: str, source: str | None) -> None:
    """Write a secret; in place of an empty one copy the file of the stem `source`."""
    if not secret and source is not None:
        secret = read_secret(directory, source)
    write_secret(private_directory(directory), stem, secret)


def forget_secret(directory: str | Path, stem: str) -> None:
    with contextlib.suppress(OSError):
        Path(secret_file(directory, stem)).unlink()


def _write(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp gives mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def holds(directory: str | Path, stem: str, secret: str | None) -> bool:
    """True when Envoy's file exists and holds this secret (None: any secret)."""
    try:
        text = Path(secret_file(directory, stem)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return secret is None or text == _resource(stem, secret)


def _resource(stem: str, secret: str) -> str:
    resource = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": secret_name(stem),
        "generic_secret": {"secret": {"inline_string": secret}},
    }
    return json.dumps({"resources": [resource]}) + "\n"


# --- the task beside the requests


@dataclass(slots=True)
class _State:
    """The state of one provider's token."""

    secret: str | None = field(default=None, repr=False)
    token: OAuthToken | None = None
    due: float = 0.0  # time of the next request
    failures: int = 0  # failed requests in a row
    answered: bool = False  # True: a request was answered, with a token or an error
    task: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """Reset the state, so that the next look requests a token at once."""
        if self.task is not None:
            self.task.cancel()
        self.task, self.due, self.failures = None, 0.0, 0


class Keeper:
    """Keeps the files in `directory` up to date. `count` gets (provider, outcome): ok, missing, or the outcome of a
    TokenError. `stem` names the file of a provider.
    """

    def __init__(
        self,
        directory: Path,
        count: Callable[[str, str], None],
        *,
        stem: Callable[[str], str] = str,
        fetch: Callable[[Credentials, str, float], Awaitable[OAuthToken]] = fetch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._stem = stem
        self._count = count
        self._fetch = fetch
        self._clock = clock
        self._states: dict[str, _State] = {}
        self._wrote: Mapping[str, str | None] = {}  # secrets wanted at the last successful look
        self._secrets: Mapping[str, str | None] | None = None  # secrets at the last look
        self._news = asyncio.Event()

    async def run(
        self,
        providers: Callable[[], Mapping[str, ProviderSettings]],
        changed: Callable[[], None],
        pause: Callable[[], float] = lambda: EVERY,
    ) -> None:
        """Look until cancelled, with pauses of about `EVERY`. Call `changed` when secrets of providers differ, because
        ids of kept objects are sealed with them.
        """
        failing = False
        try:
            while True:
                self._news.clear()
                try:
                    if await self.look(providers()):
                        changed()
                    failing = False
                except Exception as error:  # noqa: BLE001 - the next look must come, or tokens expire
                    if not failing:
                        log.error("the providers' keys are not kept: %s", type(error).__name__)  # noqa: TRY400
                    failing = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause()):
                        await self._news.wait()
        finally:
            for state in self._states.values():
                state.forget()

    async def look(self, providers: Mapping[str, ProviderSettings]) -> bool:
        """Read secrets, and write files or request tokens. True when a secret has changed since the last look, or is
        gone.
        """
        there = {name: provider for name, provider in providers.items() if provider.reference is not None}
        wrote, self._wrote = self._wrote, {}
        secrets, kept = await asyncio.to_thread(self._read, there, wrote)
        wanted = {name: self._secret_to_write(name, provider, secrets[name]) for name, provider in there.items()}
        other = {name: secret for name, secret in wanted.items() if name not in kept or wrote[name] != secret}
        if other:  # no thread for an idle look: it would cost more than the rest
            await asyncio.to_thread(self._write, other)
        self._wrote = wanted
        before, self._secrets = self._secrets, secrets
        return secrets != before

    def _read(
        self, providers: Mapping[str, ProviderSettings], wrote: Mapping[str, str | None]
    ) -> tuple[Mapping[str, str | None], Collection[str]]:
        """The secrets, and the names of providers whose files are unchanged since they were written."""
        secrets = {name: provider.read_secret() for name, provider in providers.items()}
        return secrets, {name for name, secret in wrote.items() if holds(self._directory, self._stem(name), secret)}

    def _write(self, wanted: Mapping[str, str | None]) -> None:
        for name, secret in wanted.items():
            if not holds(self._directory, self._stem(name), secret):
                write_secret(private_directory(self._directory), self._stem(name), secret or "")
                log.info("provider %s: %s", name, "Envoy has its new secret" if secret else "Envoy has no secret now")

    def _secret_to_write(self, name: str, provider: ProviderSettings, secret: str | None) -> str | None:
        """The secret for the file; None to keep the secret that an earlier process wrote."""
        state = self._states.setdefault(name, _State())
        changed, state.secret = secret != state.secret, secret
        if changed:
            state.forget()
            if secret is None:
                self._count(name, "missing")
                log.warning("provider %s: %s %s", name, provider.reference, provider.lack or "is gone")
            elif provider.credentials is None:
                self._count(name, "ok")
        if provider.credentials is None:
            return secret or ""
        if secret is None or provider.disabled:
            state.forget()
            state.token = None
            return ""
        now = self._clock()
        if (state.task is None or state.task.done()) and now >= state.due:
            state.task = asyncio.create_task(self._refresh(name, state, provider.credentials, secret, now))
        if state.token is not None and now < state.token.expires:
            return state.token.value
        return "" if state.answered else None

    async def _refresh(self, name: str, state: _State, credentials: Credentials, secret: str, now: float) -> None:
        state.due = now + LONGEST_PAUSE  # limits the rate of requests, even if the code below raises
        try:
            token = await self._fetch(credentials, secret, now)
        except TokenError as error:
            state.failures += 1
            state.due = self._clock() + pause_after(state.failures)
            left = state.token.expires - self._clock() if state.token else 0.0
            serves = f"the old one is good for {left:.0f} s" if left > 0 else "there is none"
            self._count(name, error.outcome)
            log.warning("provider %s: no new token (%s); %s", name, error, serves)
        else:
            state.failures, state.token = 0, token
            state.due = max(token.renewal(now), now + EVERY)
            self._count(name, "ok")
        state.answered = True
        self._news.set()


async def watch(providers: Callable[[], Mapping[str, ProviderSettings]], changed: Callable[[], None]) -> None:
    """Call `changed` when secrets of providers differ; for workers without a Keeper."""
    before: Mapping[str, str | None] | None = None
    while True:
        secrets = await asyncio.to_thread(_secrets, providers())
        if before is not None and secrets != before:
            changed()
        before = secrets
        await asyncio.sleep(EVERY)


def _secrets(providers: Mapping[str, ProviderSettings]) -> Mapping[str, str | None]:
    return {name: each.read_secret() for name, each in providers.items() if each.reference is not None}
