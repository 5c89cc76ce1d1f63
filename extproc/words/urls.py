"""Addresses in URLs and settings."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

USUAL_PORTS = {"http": 80, "https": 443}
"""Ports by the scheme of a URL that names none."""


def host_port(host: str, port: int | str) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_of(url: SplitResult) -> int:
    """The port of an http(s) URL: its own, or its scheme's."""
    return url.port or USUAL_PORTS[url.scheme]


def check_url(value: str, name: str, *, forbidden: str = "") -> SplitResult:
    """The parts of an http(s) URL without user, query or fragment. `forbidden` are further characters that it may not
    have; the error calls it `name`. Raises ValueError.
    """
    try:
        parts = urlsplit(value)
        wrong = parts.scheme not in USUAL_PORTS or not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    wrong = wrong or bool(parts.query or parts.fragment or parts.username or parts.password is not None)
    if wrong or not {*forbidden}.isdisjoint(value):
        raise ValueError(f"{name} must be http(s)://host[:port][/path], without user, query or fragment")
    return parts
