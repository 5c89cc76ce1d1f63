"""Envoy's listeners, clusters and routes on their way from the process that makes them to the one that gives them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from extproc.wire.framing import shapes
from extproc.words import contract


class Made(msgspec.Struct, frozen=True):
    """Messages by name."""

    digest: str  # the settings they were made from, see `settings.bound`
    text: str  # the settings file
    places: dict[str, str]  # the name of the try at each provider
    digests: dict[str, str]  # a digest of the messages of each provider's try
    clusters: dict[str, bytes]
    listeners: dict[str, bytes]
    routes: dict[str, bytes]
    secrets: dict[str, bytes]  # names of files, no secret


class ResourceQuery(msgspec.Struct, frozen=True):
    """The question to `server.making`."""

    text: str  # the settings file
    first: str  # the file with which the asking process started
    secrets: str  # directory of the providers' secrets
    socket: str | None  # the processor's, where it is not the one in the settings
    before: Made | None  # what Envoy has


def file(secrets: str | os.PathLike[str]) -> Path:
    """The file where `Made` is kept, in the directory of the providers' secrets. No provider's name begins so."""
    return Path(secrets) / "_envoy.json"


def read(path: Path) -> Made | None:
    """The kept resources; None when there are none, or of another release."""
    try:
        return shapes.decode(path.read_bytes(), Made)
    except (OSError, msgspec.DecodeError):
        return None


def write(path: Path, made: Made) -> None:
    """Write atomically."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(msgspec.json.encode(made))
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def stem(place: str) -> str:
    """The name of the secret's file of a try."""
    return place.removeprefix(contract.TRY_PREFIX)


def place(provider: str, content: str, before: Made | None) -> str:
    """The name of the try at `provider` whose messages have the digest `content`.

    It is that of an equal try before. A changed try gets a name of its own: requests that began with the old one keep
    it, with its key, however long they last.
    """
    if before is None:
        return contract.try_cluster(provider)
    if before.digests.get(provider) == content:
        return before.places[provider]
    plain = contract.try_cluster(provider)
    return plain if plain not in before.listeners else f"{plain}~{content}"
