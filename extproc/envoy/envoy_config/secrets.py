"""Providers' secrets for Envoy before a processor runs: one file for each, which Envoy watches. Secrets are in no other
place, above all not in the bootstrap. While a processor runs, `extproc.upstream.credentials.rotation` keeps the files
up to date.
"""

from __future__ import annotations

from pathlib import Path

from extproc.settings.config import Settings
from extproc.upstream.credentials.rotation import holds, private_directory, secret_file, secret_name, write_secret

__all__ = ("secret_file", "secret_name", "write_secrets")


def write_secrets(settings: Settings, directory: str | Path) -> list[str]:
    """Write a file for each provider with an api_key or credentials.

    Returns providers whose key cannot be read. Their files have an empty secret: without the file Envoy would not
    start, and without the resource in it Envoy would keep the old key. An empty secret makes the try answer by itself.
    A provider with tokens also begins with an empty secret, unless a processor wrote its file before. Call this
    function again to rotate or revoke keys: Envoy notices a rename into a watched directory.
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
