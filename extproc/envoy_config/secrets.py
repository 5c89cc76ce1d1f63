"""Providers' keys for Envoy: one file each, that Envoy watches. They stand nowhere else, least of all the bootstrap."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from extproc.config import Settings


def secret_name(provider: str) -> str:
    return f"key-{provider}"


def secret_file(directory: str | Path, provider: str) -> str:
    return str(Path(directory) / f"{provider}.yaml")


def write_secrets(settings: Settings, directory: str | Path) -> list[str]:
    """Write a file for each provider with an api_key; returns the providers whose key cannot be read.

    Their files are written too, with an empty secret: without the file Envoy does not start, without the resource in it
    Envoy keeps the old key; an empty one makes the try answer for itself. Call it again to rotate or revoke keys: a
    rename into a watched directory is what Envoy notices.
    """
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.chmod(0o700)
    missing = []
    for name, provider in settings.providers.items():
        if provider.api_key is None:
            continue
        key = provider.api_key.read()
        if key is None:
            missing.append(name)
        _replace(Path(secret_file(place, name)), _resource(name, key or ""))
    return missing


def _resource(provider: str, key: str) -> str:
    secret = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": secret_name(provider),
        "generic_secret": {"secret": {"inline_string": key}},
    }
    return json.dumps({"resources": [secret]}) + "\n"


def _replace(path: Path, text: str) -> None:
    """Atomically, and never readable by others, not even for a moment."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
