"""Providers' secrets for Envoy before there is a processor: one file each, which Envoy watches. They stand nowhere
else, least of all in the bootstrap. While a processor runs, `extproc.upstream.credentials.rotation` keeps the files up
to date.
"""

from __future__ import annotations

from pathlib import Path

from extproc.settings.config import Settings
from extproc.upstream.credentials.rotation import holds, private_directory, secret_file, secret_name, write_secret

__all__ = ("secret_file", "secret_name", "write_secrets")


def write_secrets(settings: Settings, directory: str | Path) -> list[str]:
    """Write a file for each provider with an api_key or credentials; returns those whose key cannot be read.

    Their files are written too, with an empty secret: without the file Envoy does not start, without the resource in it
    Envoy keeps the old key; an empty one makes the try answer for itself. A provider that needs tokens begins with an
    empty secret too; a file that a processor wrote stays. Call it again to rotate or revoke keys: Envoy notices a
    rename into a watched directory.
    """
    place = private_directory(directory)
    missing = []
    for name, provider in settings.hops.items():
        if provider.reference is None:
            continue
        secret = provider.read_secret()
        if secret is None:
            missing.append(name)
        if provider.credentials is None or secret is None:
            write_secret(place, name, secret or "")
        elif not holds(place, name, None):
            write_secret(place, name, "")
    return missing
