"""The admin API of a running gateway, for the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from extproc.cli._options import add_config, local_url, read_secret
from extproc.cli._tables import safe
from extproc.wire.outbound.client import AnswerError, ask

_TIMEOUT = 60.0  # seconds to wait for an answer
_MAX_ANSWER = 64 << 20  # most bytes of an answer
_PAGE = 500  # exchanges asked for at once


class AdminClient:
    """The admin API at `url`, asked with `token`. The token goes to that address only.

    Methods raise OSError when the API cannot be reached and ValueError when it refuses.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ValueError("--url is the admin API's address: http://127.0.0.1:9091")
        self._url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._token = token
        self.timeout = _TIMEOUT

    def text(self, path: str, parameters: Sequence[tuple[str, str]] = (), body: Mapping[str, Any] | None = None) -> str:
        """The answer to a GET, or to a POST of `body` as JSON."""
        headers = {} if self._token is None else {"authorization": f"Bearer {self._token}"}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["content-type"] = "application/json"
        url = self._url + path + ("?" + urlencode(parameters) if parameters else "")
        try:
            status, data = ask(url, content, headers, timeout=self.timeout, most=_MAX_ANSWER)
        except (OSError, AnswerError) as error:
            raise OSError(
                f"{self._url} does not answer: {str(error) or type(error).__name__}; is the gateway up?"
            ) from None
        if len(data) > _MAX_ANSWER:
            raise ValueError(f"the answer is longer than {_MAX_ANSWER >> 20} MiB: ask for less")
        found = data.decode(errors="replace")
        if status not in (200, 201, 204):
            raise ValueError(f"{self._url} refuses: {_reason(status, found)}")
        return found

    def json(
        self, path: str, parameters: Sequence[tuple[str, str]] = (), body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """The answer of `text`, parsed. Raises ValueError when it is not a JSON object."""
        text = self.text(path, parameters, body)
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise ValueError(f"{self._url} is not the admin API of a gateway: its answer is no JSON object") from None


def message(data: bytes) -> str:
    """The reason in an answer of the gateway; empty without one."""
    try:
        return str(msgspec.json.decode(data)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return ""


def _reason(status: int, text: str) -> str:
    if status == 401:
        return "it wants the admin token: --token env:NAME"
    try:
        return safe(str(json.loads(text)["error"]["message"]), 500)
    except (ValueError, KeyError, TypeError):
        return f"status {status}"


def add_gateway(parser: argparse.ArgumentParser) -> None:
    """Declare the options that name the gateway."""
    add_config(parser)
    parser.add_argument("--url", help="address of the admin API (default: as in the settings, with their token)")
    parser.add_argument("--token", metavar="env:NAME|file:PATH", help="admin token")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Declare `--only`."""
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="filter; may be repeated, label.NAME=VALUE too",
    )


def filters(options: argparse.Namespace) -> Sequence[tuple[str, str]]:
    """The parameters of `--only`."""
    only = [text.partition("=") for text in options.only]
    if not all(name and equals for name, equals, _ in only):
        raise ValueError("--only is given as field=value")
    return [(name, value) for name, _, value in only]


def connect(options: argparse.Namespace) -> AdminClient:
    """The gateway at `--url`, else that of the settings. The token of the settings is sent only to the address in the
    settings.
    """
    token = None if options.token is None else read_secret(options.token, "--token")
    if options.url is not None:
        return AdminClient(options.url, token)
    from extproc.settings import config  # noqa: PLC0415 - with --url it would take three quarters of the time

    admin = config.load(options.config).admin
    if token is None and admin.token is not None:
        token = read_secret(str(admin.token), "admin.token")
    return AdminClient(local_url(admin.address, admin.port), token)


def exchanges(gateway: AdminClient, wanted: Sequence[tuple[str, str]]) -> Iterator[Mapping[str, Any]]:
    """The exchanges that `wanted` filters, the latest first, page by page."""
    before: list[tuple[str, str]] = []
    while page := gateway.json("/exchanges", [*wanted, *before, ("limit", str(_PAGE))])["data"]:
        yield from page
        before = [("before", page[-1]["id"])]


def door_of(gateway: AdminClient, url: str | None) -> str:
    """The address of the listener for clients, on the host of the admin API. Raises ValueError if it is not known."""
    found, host = gateway.json("/me")["door"], urlsplit(url or "").hostname or "127.0.0.1"
    if not found:
        raise ValueError("the gateway does not say where its listener is: give --door")
    return f"http{'s' if found['tls'] else ''}://{host}:{found['port']}"
