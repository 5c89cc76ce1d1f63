"""Envoy's listeners, clusters and routes, as passed from the process that makes them to the processor."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from extproc.wire.framing import shapes
from extproc.words import contract


class Made(msgspec.Struct, frozen=True):
    """Envoy's messages, by name."""

    digest: str  # digest of the settings they were made from, see `settings.bound`
    text: str  # the settings file
    places: dict[str, str]  # name of the try, by provider
    digests: dict[str, str]  # digest of a try's messages, by provider
    clusters: dict[str, bytes]
    listeners: dict[str, bytes]
    routes: dict[str, bytes]
    secrets: dict[str, bytes]  # names of secret files; no secrets


class ResourceQuery(msgspec.Struct, frozen=True):
    """A question to `server.making`."""

    text: str  # the settings file
    first: str  # settings with which the asking process started
    secrets: str  # directory of providers' secrets
    socket: str | None  # the processor's socket, if it is not the one in the settings
    before: Made | None  # Envoy's current resources


def file(secrets: str | os.PathLike[str]) -> Path:
    """The file of `Made`, in the directory of providers' secrets. No provider's name has this beginning."""
    return Path(secrets) / "_envoy.json"


def read(path: Path) -> Made | None:
    """The kept resources; None without any, or for those of another release."""
    try:
        return shapes.decode(path.read_bytes(), Made)
    except (OSError, msgspec.DecodeError):
        return None


def write(path: Path, made: Made) -> None:
    """Write the resources atomically."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(msgspec.json.encode(made))
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def stem(place: str) -> str:
    """Name of a try's secret file."""
    return place.removeprefix(contract.TRY_PREFIX)


def place(provider: str, content: str, before: Made | None) -> str:
    """Name of the try at `provider` whose messages have the digest `content`.

    An equal try keeps its earlier name. A changed try gets a new name, so that running requests keep the old try, with
    its key, until they end.
    """
    if before is None:
        return contract.try_cluster(provider)
    if before.digests.get(provider) == content:
        return before.places[provider]
    plain = contract.try_cluster(provider)
    return plain if plain not in before.listeners else f"{plain}~{content}"
