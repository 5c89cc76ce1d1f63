"""Options that several verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path

from extproc.words.urls import host_port
from extproc.words.values import Secret, is_variable

_DAY = 86_400
_MOST_HOURS = 240
_MOST_THREADS = 1024


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare `--config`."""
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path("gateway.yaml"),
        metavar="FILE",
        help="settings (default: gateway.yaml)",
    )


def seconds(text: str) -> float:
    """The value of an option that is a time."""
    return _number(text, _DAY, "seconds")


def hours(text: str) -> float:
    """The value of an option that is a number of hours."""
    return _number(text, _MOST_HOURS, "hours")


def _number(text: str, most: int, unit: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= most:
        raise argparse.ArgumentTypeError(f"a number of {unit}, 0 to {most}, is expected")
    return found


def threads(text: str) -> int:
    """The value of an option that is a number of threads."""
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"a whole number, 1 to {_MOST_THREADS}, is expected")
    return int(text)


def local(address: str) -> str:
    """The address where a client on the same machine reaches a server of the settings."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104


def local_url(address: str, port: int, scheme: str = "http") -> str:
    """The URL of the address from `local`."""
    return f"{scheme}://{host_port(local(address), port)}"


def read_secret(reference: str, option: str, hint: str = "") -> str:
    """The secret that an option refers to.

    Raises ValueError. Its text does not repeat a malformed reference, which may be the secret itself.
    """
    scheme, _, where = reference.partition(":")
    if not where or not (scheme == "file" or (scheme == "env" and is_variable(where))):
        raise ValueError(f"{option} is a reference: env:NAME or file:/path")
    secret = Secret(scheme, where).read()
    if secret is None:
        raise ValueError(f"{reference} is not set{hint}")
    return secret
