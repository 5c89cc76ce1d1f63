"""Reloads: new settings are applied to this process and to Envoy, in an order that keeps both consistent for every
request.

1. A change is read and checked, a large one by a process of its own (`server.reading`). Wrong settings change nothing.
2. Everything that needs no change of Envoy applies at once: consumers, budgets, guardrails, kill switches.
3. A process of its own makes Envoy's resources (`server.making`). Envoy gets the new ones beside the old ones.
4. When Envoy has accepted them, the rest applies. When it refuses them, it gets the old ones back, and the settings are
   stale.
5. What is no longer needed is taken from Envoy when no exchange can last that began with it.

The settings that bind at the start stay as they are; the others of the same change apply. Of several workers the first
does this; the others wait for its file.

The file's content is compared once a second. Polling sees edits, renames and the symlink swap of a ConfigMap alike. The
digest of Envoy's resources and the resources themselves are kept beside the secrets (`envoy.resources`), for the next
start and for the other workers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from extproc.envoy import resources
from extproc.envoy.resources import Made, ResourceQuery
from extproc.envoy.server.discovery import (
    CLUSTERS,
    KINDS,
    LISTENERS,
    SECRETS,
    Discovery,
    EnvoyAwayError,
    EnvoyRefusedError,
)
from extproc.envoy.server.reading import ReadSettings
from extproc.settings import bound, config
from extproc.settings.config import Settings
from extproc.settings.document import ConfigError, without_collections
from extproc.upstream.credentials.rotation import copy_secret, forget_secret, private_directory
from extproc.wire.framing import shapes
from extproc.wire.outbound.helper import Helper, HelperError
from extproc.words.values import files_of

log = logging.getLogger(__name__)

_WITHIN = 5.0  # seconds for Envoy to accept resources of a kind
_WARM = 0.3  # seconds for accepted listeners to start
_AGAIN = 1.0  # seconds between attempts to reach Envoy
_REFUSED = 15.0  # seconds until refused resources are offered again: a missing file may exist by then
_PATIENCE = 10.0  # seconds in which a disconnected Envoy, or worker 0, should follow a change
_BUILD = 60.0  # seconds for a helper to read settings or make resources, and until a retry after its failure
_LARGE = 128 << 10  # bytes or characters of settings above which a helper process reads them
_LOOK = 1.0  # seconds between checks of the files while a helper works


_NOT_YET = "Envoy has not got them yet"
_T = TypeVar("_T")


class Process(Protocol):
    """Methods of the processor that a reload needs."""

    def apply_settings(self, settings: Settings, places: Mapping[str, str]) -> None:
        """Use these settings from the next request on. Raises, without a change, if they do not work."""

    def refusal_of(self, settings: Settings) -> str:
        """The reason why these settings cannot replace the current ones; empty if they can."""

    def report(self, outcome: str, stale: str) -> None:
        """Report a change: `taken`, `partial`, `refused`, or `""` for none. `stale` is why the settings in use differ
        from the file.
        """


class MakingError(Exception):
    """A helper process failed. The message is the reason."""


class SupersededError(Exception):
    """The settings changed again before Envoy's resources for them were made."""


class Reloads:
    """Follows the settings file, and the files of its secrets."""

    def __init__(
        self,
        process: Process,
        file: Path,
        settings: Settings,
        *,
        secrets: Path | None,
        socket: str | None = None,
        worker: int = 0,
        first: str | None = None,
    ) -> None:
        """`first` is the text of the settings for parts that bind at a start; None: the file's text."""
        self.discovery = Discovery()
        self._process = process
        self._file = file
        self._content = config.content(file)
        self._text = self._content.decode("utf-8", "replace")
        self._first_text, self._first = self._text if first is None else first, settings
        if self._first_text != self._text:
            self._content = b""  # forces a first check, which reports the parts that bind at a restart
        self._kept = resources.file(secrets) if secrets is not None else None
        self._secrets = secrets
        self._socket = socket
        self._leads = worker == 0
        self._used = self._wanted = self._envoys = settings  # settings in use; of the file; of Envoy
        self._made: Made | None = resources.read(self._kept) if self._kept is not None else None
        self._given: dict[str, Mapping[str, bytes]] = {kind: {} for kind in KINDS}
        self._leaving: dict[tuple[str, str], float] = {}  # time at which a resource of `_given` is removed
        self._refusal = self._bound_note = self._envoy_note = ""
        self._next_try = 0.0
        self._since = time.monotonic()  # time of the latest change
        self._ready: Made | None = None  # resources made for `_wanted`
        beside = sys.executable, "-m", f"{__package__}.making"
        self._making = Helper(beside, within=_BUILD, rest=0.0)
        self._reading = Helper((*beside[:2], f"{__package__}.reading", str(file)), within=_BUILD, rest=0.0)
        self._files = files_of(settings)
        self._signatures = signatures(self._files)

    @property
    def _before(self) -> Made | None:
        """Envoy's resources, including listeners that are still to be removed."""
        if self._made is None or not self._given[LISTENERS]:
            return self._made
        return msgspec.structs.replace(self._made, listeners=dict(self._given[LISTENERS]))

    @property
    def places(self) -> Mapping[str, str]:
        """Names of tries in Envoy, by provider. Without resources they are `contract.try_cluster`."""
        return {} if self._made is None else self._made.places

    def stem(self, provider: str) -> str:
        """Name of a provider's secret file."""
        place = self.places.get(provider)
        return provider if place is None else resources.stem(place)

    async def start(self) -> None:
        """Begin with the resources that Envoy has, if an earlier process kept them. The settings may have changed
        since.
        """
        self._prepare_reading()
        if self._made is None:
            return
        if self._made.digest != bound.digest(self._first):
            try:
                before = await asyncio.to_thread(config.parse, self._made.text)
            except ConfigError:  # another release wrote the resources, or a secret is missing
                log.error("the settings that Envoy has cannot be read")  # noqa: TRY400
            else:
                self._envoys = bound.fixed(before, self._first)
                self._apply(bound.without_envoy(self._wanted, self._envoys))
        if self._leads:
            self._publish(self._made)

    def close(self) -> None:
        """End the helper processes."""
        self._making.end()
        self._reading.end()

    # --- checks of the files

    async def look(self) -> None:
        """Check the files for a change, and retry a change that waits for Envoy. Called about once a second."""
        content, found = await asyncio.to_thread(self._read)
        files = self._files
        if content != self._content:
            self._content = content
            await self.reload()
            self._prepare_reading()
        elif self._leads and self._made is None and self.discovery.asked.is_set():
            await self._make_first()
        elif self._wanted is not self._envoys and time.monotonic() >= self._next_try:
            await self._update_envoy()
        if files is self._files:  # after a reload `found` would belong to other files
            self._read_secrets(found)
        if self._leaving:
            await self._remove_leaving()

    def _read_secrets(self, found: Sequence[object]) -> None:
        if found != self._signatures:
            self._signatures = found
            self._process.apply_settings(self._used, self.places)  # this reads the secrets
            log.info("a file with a secret has changed: it was read again")
            if gone := [file for file, each in zip(self._files, found, strict=True) if each is None]:
                log.warning("files of secrets are missing: %s", ", ".join(gone))

    def _read(self) -> tuple[bytes, Sequence[object]]:
        return config.content(self._file), signatures(self._files)

    async def reload(self) -> None:
        """Apply the file's new content, as far as possible, or keep the last good settings."""
        try:
            text = await asyncio.to_thread(config.text, self._file)
            settings = await self._parse(text)
        except ConfigError as error:
            self._refuse_change(str(error))
            return
        except SupersededError:  # the next look reads the newer change
            return
        except MakingError as error:
            self._refuse_change(f"they cannot be read: {error}")
            return
        except Exception as error:  # a MemoryError, or a bug in a check, must not stop reloading
            log.exception("the new settings cannot be read")
            self._refuse_change(f"they cannot be read: {type(error).__name__}")
            return
        if reason := self._process.refusal_of(settings):
            self._refuse_change(reason)
            return
        self._refusal = ""
        left = bound.changes_of_fixed(settings, self._first)
        self._bound_note = f"changes of {', '.join(left)} bind at a restart" if left else ""
        self._envoy_note, self._ready, self._text, self._since = "", None, text, time.monotonic()
        self._wanted = bound.fixed(settings, self._first)
        if bound.digest(self._wanted) == bound.digest(self._envoys):
            self._apply(self._wanted)  # after an error here a later look continues
            self._envoys = self._wanted
            self._report_change()
            return
        if self._leads and self._made is not None and self.discovery.connected:
            self._making.begin()
        self._apply(bound.without_envoy(self._wanted, self._envoys, leaving=True))
        self._note_wait(_NOT_YET, 0.0)
        await self._update_envoy()

    def _prepare_reading(self) -> None:
        """Start a process for the next change of a large file, because the start takes most of a second."""
        if len(self._content) > _LARGE:
            self._reading.begin()
        else:
            self._reading.end()

    async def _parse(self, text: str) -> Settings:
        """The settings in `text`. Raises ConfigError, SupersededError, MakingError."""
        if len(text) <= _LARGE:
            return await asyncio.to_thread(config.parse, text, str(self._file))
        log.info("new settings of %d KiB are being read", len(text) >> 10)
        self._process.report("", "a change of the file is being read")
        try:
            found = await self._until_changed(_answer(self._reading, text.encode()))
        finally:
            self._reading.end()  # its memory has grown by the reading
        self._prepare_reading()
        read = await asyncio.to_thread(msgspec.msgpack.decode, found, type=ReadSettings)
        if read.problems:
            raise ConfigError(str(self._file), read.problems)
        with without_collections():
            return await asyncio.to_thread(Settings.model_validate, read.tree)

    def _apply(self, settings: Settings) -> None:
        files = files_of(settings)
        found = signatures(files)  # taken before the files are read, so that the next look sees a change meanwhile
        with without_collections():  # `apply_settings` never awaits, so no other code runs meanwhile
            self._process.apply_settings(settings, self.places)
        self._used, self._files, self._signatures = settings, files, found

    def _refuse_change(self, reason: str) -> None:
        self._refusal = reason
        log.error("the new settings are refused; the last good ones stay: %s", reason)
        self._process.report("refused", reason)

    def _report_change(self) -> None:
        """Report an applied change, or the parts of it that wait."""
        stale = "; ".join(note for note in (self._refusal, self._bound_note, self._envoy_note) if note)
        if stale:
            log.error("new settings taken but for a part: %s", stale)
        else:
            log.info("new settings taken")
        self._process.report("partial" if stale else "taken", stale)

    # --- Envoy

    async def _update_envoy(self) -> None:
        """Update Envoy to the wanted settings, then this process."""
        self._next_try = time.monotonic() + _PATIENCE  # after an unexpected error
        try:
            made = await (self._lead_envoy() if self._leads else self._made_elsewhere())
        except EnvoyRefusedError as error:
            self._note_wait(f"Envoy refuses them: {error}", _REFUSED)
        except MakingError as error:
            self._note_wait(str(error), _BUILD)
        except EnvoyAwayError:
            self._note_wait(self._why_away(), _AGAIN if self._leads else 0.0)
        except SupersededError:
            self._next_try = 0.0  # the next look reads the newer change
        else:
            self._made, self._envoys, self._envoy_note = made, self._wanted, ""
            self._apply(self._wanted)
            self._report_change()

    def _why_away(self) -> str:
        if self._leads and not self.discovery.asked.is_set():
            return (
                "this Envoy has its configuration from a file: write it again (extproc envoy), start Envoy again, and "
                "then this process"
            )
        return _NOT_YET

    def _note_wait(self, reason: str, seconds: float) -> None:
        self._next_try = time.monotonic() + seconds
        if reason != _NOT_YET or not self._patient:
            self._switch_off()
        names = ", ".join(bound.held_back(self._wanted, self._used)) or "settings of Envoy"
        note = f"changes of {names} wait: {reason}"
        if reason == _NOT_YET and self._patient:
            self._process.report("", note)
        elif note != self._envoy_note:
            self._envoy_note = note
            self._report_change()

    @property
    def _patient(self) -> bool:
        """True for the first seconds after a change."""
        return time.monotonic() - self._since < _PATIENCE

    def _switch_off(self) -> None:
        """Disable targets that still serve until Envoy has the change, because the change takes too long."""
        before = self._used.before
        if before is not None and before.leaving is not None:
            self._apply(bound.without_envoy(self._wanted, self._envoys))

    async def _make_first(self) -> None:
        """Make the first resources, for an Envoy that asks before any were prepared."""
        try:
            self._made = await self._make_resources()
        except MakingError as error:
            self._note_wait(str(error), _AGAIN)
            return
        self._write_secrets(self._made)
        self._write_made(self._made)
        self._publish(self._made)

    async def _lead_envoy(self) -> Made:
        if self._made is None or not self.discovery.connected:
            raise EnvoyAwayError
        if self._ready is None:
            self._ready = await self._until_changed(self._make_resources())
        made = self._ready
        self._write_secrets(made)
        await self._give_envoy(made)
        self._write_made(made)
        return made

    async def _made_elsewhere(self) -> Made:
        """The resources for the wanted settings that worker 0 has kept. Raises EnvoyAwayError."""
        made = await asyncio.to_thread(resources.read, self._kept) if self._kept is not None else None
        if made is None or made.digest != bound.digest(self._wanted):
            raise EnvoyAwayError
        return made

    async def _until_changed(self, work: Coroutine[None, None, _T]) -> _T:
        """The result of work that may take seconds. A change of the settings ends the work, so that disabling a
        consumer is not delayed. A change of a secret's file is applied meanwhile. Raises SupersededError.
        """
        task = asyncio.create_task(work, name="beside")
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK))[0]:
                content, found = await asyncio.to_thread(self._read)
                self._read_secrets(found)
                if not self._patient:
                    self._switch_off()
                if content != self._content:
                    raise SupersededError
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _make_resources(self) -> Made:
        """Envoy's resources for the wanted settings, compatible with its current ones. Raises MakingError."""
        directory = str(self._secrets or "/run/extproc/secrets")
        question = msgspec.json.encode(
            ResourceQuery(self._text, self._first_text, directory, self._socket, self._before)
        )
        try:
            return shapes.decode(await _answer(self._making, question), Made)
        except MakingError as error:
            hint = ": pip install 'llm-extproc[envoy]'" if str(error) == "ModuleNotFoundError" else ""
            raise MakingError(f"Envoy's configuration cannot be made ({error}){hint}") from None

    async def _give_envoy(self, made: Made) -> None:
        """Give Envoy the new resources beside its current ones. Raises EnvoyRefusedError, EnvoyAwayError."""
        before = dict(self._given)
        both = {kind: {**before[kind], **found} for kind, found in _kinds(made)}
        try:
            self.discovery.set(SECRETS, both[SECRETS])  # set before listeners, which ask for secrets
            for kind in KINDS:
                await self._offer(kind, both[kind])
        except EnvoyRefusedError:
            for kind, found in before.items():
                self._given[kind] = found
                self.discovery.set(kind, found)
            raise
        await asyncio.sleep(_WARM)
        due = time.monotonic() + self._envoys.limits.stream_duration
        for kind, found in _kinds(made):
            for name in self._given[kind]:
                if name in found:
                    self._leaving.pop((kind, name), None)
                elif kind in (CLUSTERS, LISTENERS):
                    self._leaving.setdefault((kind, name), due)

    async def _remove_leaving(self) -> None:
        """Remove resources from Envoy that no exchange needs: listeners first, then the clusters they lead to."""
        now = time.monotonic()
        over = [each for each, due in self._leaving.items() if due <= now]
        for kind in (LISTENERS, CLUSTERS):
            gone = [name for which, name in over if which == kind]
            if not gone:
                continue
            try:
                await self._offer(kind, {key: text for key, text in self._given[kind].items() if key not in gone})
            except (EnvoyRefusedError, EnvoyAwayError):
                log.warning("Envoy still has %s, which nothing uses: it has not answered", ", ".join(gone))
            for name in gone:
                self._leaving.pop((kind, name), None)
                if self._secrets is not None and kind == LISTENERS:
                    forget_secret(self._secrets, resources.stem(name))

    async def _offer(self, kind: str, found: Mapping[str, bytes]) -> None:
        self._given[kind] = found
        await self.discovery.offer(kind, found, _WITHIN)

    def _publish(self, made: Made) -> None:
        """Set these resources for an Envoy that will ask."""
        for kind, found in _kinds(made):
            self._given[kind] = found
            self.discovery.set(kind, found)

    def _write_secrets(self, made: Made) -> None:
        """Write a secret file for each new try: Envoy refuses a listener without it."""
        if self._secrets is None:
            return
        places = self.places
        for name, place in made.places.items():
            provider = self._wanted.hops[name]
            if provider.reference is not None and place != places.get(name):
                # A token also fits the provider's new address, so it is copied. A key is always read again.
                old = self._envoys.hops.get(name)
                same = old is not None and old.credentials is not None and old.credentials == provider.credentials
                source = resources.stem(places[name]) if same and name in places else None
                secret = provider.read_secret() if provider.credentials is None else ""
                copy_secret(self._secrets, resources.stem(place), secret or "", source)

    def _write_made(self, made: Made) -> None:
        """Write the resources for other workers, and for this process after a restart."""
        if self._kept is not None:
            try:
                private_directory(self._kept.parent)
                resources.write(self._kept, made)
            except OSError as error:
                log.error("Envoy's resources cannot be kept in %s: %s", self._kept.parent, error.strerror)  # noqa: TRY400


def _kinds(made: Made) -> Sequence[tuple[str, Mapping[str, bytes]]]:
    """Resources by kind, clusters first: Envoy refuses listeners that lead to unknown clusters."""
    return [(kind, getattr(made, kind)) for kind in KINDS]


async def _answer(helper: Helper, question: bytes) -> bytes:
    """Answer of a helper process. Cancelling this call ends the process. Raises MakingError."""
    try:
        return await asyncio.to_thread(helper.ask, question)
    except HelperError as error:
        raise MakingError(str(error)) from None
    except asyncio.CancelledError:
        helper.end()
        raise


def signatures(files: Sequence[str]) -> Sequence[object]:
    """Values that change when a file's content changes or the file is replaced, for example by a symlink swap."""
    found: list[object] = []
    for file in files:
        try:
            status = os.stat(file)  # noqa: PTH116 - half the time of Path.stat
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return found
