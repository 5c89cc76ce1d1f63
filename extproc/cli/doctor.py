"""`extproc doctor`: examines a running gateway and says what is wrong."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec

from extproc import __version__
from extproc.cli import _drain
from extproc.cli._admin import Gateway, add_gateway, connect
from extproc.cli._options import local_url, read_secret
from extproc.cli._tables import safe
from extproc.outbound.client import AnswerError, ask_whole
from extproc.settings import config
from extproc.settings.config import Settings

EXAMPLES = """\
  extproc doctor --key env:EXTPROC_KEY                        on the gateway's machine, with a consumer's key
  extproc doctor --listener https://ai.example.com            by the name that clients use
"""

_TIMEOUT = 5.0  # seconds for an answer of the listener or of the status port
_STORES = 10.0  # seconds for an answer of the admin API: a gateway that hangs is what this command is for
_MOST = 1 << 20  # bytes of such an answer
_CLOCKS = 5.0  # seconds by which clocks may differ: `Date` has whole seconds, and tokens and windows bear no more
ENVOY = (1, 40)
"""The release of Envoy that the gateway is tested with: older ones do not know its configuration."""
_STRANGER = "sk-extproc-doctor-no-such-key"


class Finding(NamedTuple):
    """The result of a check. `wrong` is None where the check was not possible."""

    name: str
    wrong: bool | None
    text: str
    hint: str = ""

    def show(self) -> str:
        mark = "--" if self.wrong is None else "WRONG" if self.wrong else "ok"
        line = f"{mark:<6}{self.name:<11}{safe(self.text, 500)}"
        return f"{line}\n{'':<17}{self.hint}" if self.hint else line


def arguments(parser: argparse.ArgumentParser) -> None:
    add_gateway(parser)
    parser.add_argument("--listener", metavar="URL", help="address that clients use (default: as in the settings)")
    parser.add_argument("--envoy-admin", metavar="PATH", help="Envoy's admin socket, for its version")
    parser.add_argument("--key", metavar="env:NAME|file:PATH", help="gateway key that must be accepted")


def run(options: argparse.Namespace) -> int:
    """Print a line for each check. Returns 1 when something is wrong. Raises ConfigError for settings that do not
    load.
    """
    key = None if options.key is None else read_secret(options.key, "--key")
    settings = config.load(options.config)
    listener = settings.listener
    if options.listener is not None and not options.listener.startswith(("http://", "https://")):
        raise ValueError("--listener: write the address with its scheme, such as https://ai.example.com")
    url = options.listener or local_url(listener.address, listener.port, "https" if listener.tls else "http")
    sick = False
    for finding in _examine(options, settings, url.rstrip("/").removesuffix("/v1"), key):
        print(finding.show(), flush=True)
        sick |= finding.wrong is True
    return int(sick)


def _examine(options: argparse.Namespace, settings: Settings, url: str, key: str | None) -> Iterator[Finding]:
    doubts = len(config.lint(options.config))
    hint = f"warnings of extproc check: {doubts}" if doubts else ""
    yield Finding("settings", False, f"{options.config} is valid", hint)
    yield from _secrets(settings)
    yield from _status(local_url(settings.status.address, settings.status.port))
    yield from _listener(url, settings, key)
    try:
        gateway = connect(options)
    except ValueError as error:  # no admin token
        yield Finding("admin", None, str(error), "counters and ledger are not examined without the admin token")
    else:
        gateway.timeout = _STORES
        yield _version(gateway)
        yield from _stores(gateway, counts=bool(settings.budgets))
    if options.envoy_admin is not None:
        yield _envoy(options.envoy_admin)


def _secrets(settings: Settings) -> Iterator[Finding]:
    """The providers' keys, as this process can read them."""
    lacking = {name: lack for name, provider in settings.providers.items() if (lack := provider.lack)}
    for name, lack in lacking.items():
        hint = "requests to it fail over, or fail, unless only the gateway's own environment has the key"
        yield Finding("secrets", True, f"the key of the provider {name} {lack} here", hint)
    if not lacking:
        yield Finding("secrets", False, "every provider has its key")


def _status(url: str) -> Iterator[Finding]:
    """Health, and settings that the gateway has not taken."""
    for path in ("/healthz", "/readyz"):
        try:
            status, _, data = ask_whole(url + path, timeout=_TIMEOUT, most=_MOST)
        except (OSError, AnswerError) as error:
            yield Finding("processor", True, f"{url} does not answer ({_reason(error)})", "is the processor up?")
            return
        reason, *remarks = data.decode(errors="replace").splitlines() or [""]
        yield Finding("processor", status != 200, f"{path}: {reason}")
        for remark in remarks:
            away = remark.endswith(" is away")
            hint = "its supervisor starts it again: see the log" if away else "restart it, or correct the settings"
            yield Finding("processor", True, remark, hint)


def _listener(url: str, settings: Settings, key: str | None) -> Iterator[Finding]:
    """Requests through Envoy: none passes without a key that the gateway knows."""
    for name, given in (("no key", None), ("an unknown key", _STRANGER), ("the given key", key)):
        if name == "the given key" and given is None:
            yield Finding("listener", None, "whether a key is accepted is not known", "give one: --key env:NAME")
            continue
        headers = {} if given is None else {"authorization": f"Bearer {given}"}
        sent = time.time()
        try:
            status, answered, _ = ask_whole(f"{url}/v1/models", None, headers, timeout=_TIMEOUT, most=_MOST)
        except (OSError, AnswerError) as error:
            hint = "is Envoy up? With TLS, give --listener with the name in the certificate"
            yield Finding("listener", True, f"{url} does not answer ({_reason(error)})", hint)
            return
        if given is None:
            yield _clock(answered.get("date", ""), sent, time.time())
        accepts = (given is not None and given == key) or (given is None and not settings.auth.required)
        wanted = 200 if accepts else 401
        hint = "" if status == wanted else _WHY.get((wanted, status), f"the answer should be {wanted}")
        yield Finding("listener", status != wanted, f"{name}: status {status}", hint)
        if status != wanted:  # it may not be the gateway: the key is not sent there
            return


_WHY = {
    (401, 200): "the address bypasses the gateway: anybody can use it",
    (200, 401): "no consumer of the running gateway has this key",
    (401, 500): "Envoy does not reach the processor: see its log",
    (401, 503): "Envoy does not reach the processor: see its log",
}


def _clock(date: str, sent: float, received: float) -> Finding:
    """The clock of the listener's machine: its answer was written between `sent` and `received`."""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return Finding("clock", None, "the listener's answer has no date")
    off = max(sent - 1 - theirs, theirs - received, 0.0)  # `Date` leaves out the part of a second
    hint = "tokens expire and budgets begin at other times there: set the clocks (NTP)"
    return Finding("clock", off > _CLOCKS, f"differs by {off:.0f} s from the listener's", hint * (off > _CLOCKS))


def _version(gateway: Gateway) -> Finding:
    """The gateway's release: that of this command reads the settings as the gateway does."""
    try:
        running = str(gateway.json("/openapi.json")["info"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return Finding("version", None, "the gateway does not tell its version")
    if running == __version__:
        return Finding("version", False, f"the gateway is {running}")
    hint = "run the command of the gateway's own installation: settings may mean something else there"
    return Finding("version", True, f"the gateway is {running}, this command is {__version__}", hint)


def _envoy(path: str) -> Finding:
    """Envoy's release, as its admin socket tells."""
    try:
        told = msgspec.json.decode(_drain.ask(path, "GET", "/server_info"))["version"].split("/")[1]
        running = tuple(map(int, told.split(".")[:2]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return Finding("envoy", True, f"{path} does not tell Envoy's version ({type(error).__name__})")
    wanted = ".".join(map(str, ENVOY))
    hint = f"use Envoy {wanted}" if running < ENVOY else "" if running == ENVOY else f"tested with {wanted}"
    return Finding("envoy", running < ENVOY, f"Envoy is {told}", hint)


def _stores(gateway: Gateway, *, counts: bool) -> Iterator[Finding]:
    """The stores, as the running gateway reaches them. Without budgets it does not look at the counters."""
    today = [("start", datetime.now(UTC).date().isoformat())]
    for name, path, parameters in (("counters", "/budgets", []), ("ledger", "/usage", today)):
        try:
            gateway.json(path, parameters)
        except (OSError, ValueError) as error:
            yield Finding(name, True, str(error), "the gateway's log names the cause")
        else:
            if name == "counters" and not counts:
                yield Finding(name, None, "not examined: the settings have no budgets")
            else:
                yield Finding(name, False, "the gateway reads the store")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
