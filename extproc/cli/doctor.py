"""`extproc doctor`: examines a running gateway and says what is wrong."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import msgspec

from extproc import __version__
from extproc.cli import _drain
from extproc.cli._admin import AdminClient, add_gateway, connect, message
from extproc.cli._options import local_url, read_secret
from extproc.cli._tables import painted, safe
from extproc.routing.catalog import Catalog
from extproc.routing.pools import servers
from extproc.settings import config
from extproc.settings.config import Settings
from extproc.wire.outbound.certificate import CertificateError, dates, dates_of, encoded, ending, misfit, served
from extproc.wire.outbound.client import AnswerError, ask_whole
from extproc.words.urls import host_port, port_of

EXAMPLES = """\
  extproc doctor --key env:EXTPROC_KEY                        on the gateway's machine, with a consumer's key
  extproc doctor --listener https://ai.example.com            by the name that clients use
"""

_TIMEOUT = 5.0  # seconds to wait for an answer of the listener or of the status port
_STORES = 20.0  # seconds to wait for an answer of the admin API, long enough to examine a hanging gateway
_MOST = 1 << 20  # most bytes of an answer
_CLOCKS = 5.0  # seconds by which clocks may differ: `Date` has whole seconds, and tokens and windows tolerate no more
ENVOY = (1, 40)
"""The release of Envoy that the gateway is tested with: older ones do not know its configuration."""
_SHOWN = 5  # most names in a line
_STRANGER = "sk-extproc-doctor-no-such-key"


class Diagnosis(NamedTuple):
    """The result of a check. `wrong` is None if the check was not possible."""

    name: str
    wrong: bool | None
    text: str
    hint: str = ""

    def show(self) -> str:
        mark, colour = {None: ("--", "doubtful"), True: ("WRONG", "bad"), False: ("ok", "good")}[self.wrong]
        line = f"{painted(f'{mark:<6}', colour)}{self.name:<11}{safe(self.text, 500)}"
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


def _examine(options: argparse.Namespace, settings: Settings, url: str, key: str | None) -> Iterator[Diagnosis]:
    doubts = len(config.lint(options.config))
    hint = f"warnings of extproc check: {doubts}" if doubts else ""
    yield Diagnosis("settings", False, f"{options.config} is valid", hint)
    yield from _secrets(settings)
    yield from _pools(settings)
    yield from _status(local_url(settings.status.address, settings.status.port))
    yield from _certificates(settings, url)
    yield from _listener(url, settings, key)
    try:
        gateway = connect(options)
    except ValueError as error:  # the admin token is missing
        yield Diagnosis("admin", None, str(error), "version, counters and ledger are not examined without it")
    else:
        yield from _admin(gateway)
    if options.envoy_admin is not None:
        yield _envoy(options.envoy_admin)


def _secrets(settings: Settings) -> Iterator[Diagnosis]:
    """Checks of the providers' keys, as far as this process can read them. A missing key is an error if a name has no
    other target.
    """
    lacking = {name: lack for name, provider in settings.providers.items() if (lack := provider.lack)}
    catalog = Catalog(settings.providers, settings.models, settings.virtual_models)
    chains = {name: chain.targets for name in catalog.names() if (chain := catalog.resolve(name)) is not None}
    for provider, lack in lacking.items():
        text = f"the key of the provider {provider} {lack} here"
        dead = [
            name
            for name, targets in chains.items()
            if targets[0].provider == provider and all(target.provider in lacking for target in targets)
        ]
        if dead or len(lacking) == len(settings.providers):
            names = f"nothing else serves {', '.join(dead[:_SHOWN])}" if dead else "nothing is served"
            yield Diagnosis("secrets", True, text, f"{names}, unless only the gateway's own environment has the key")
        else:
            yield Diagnosis("secrets", None, text, "its models are skipped: no other name needs them")
    if not lacking:
        yield Diagnosis("secrets", False, "every provider has its key")


def _pools(settings: Settings) -> Iterator[Diagnosis]:
    """Checks of the metrics of pools' servers, as far as this process can reach them. The counts of requests must be
    there, because the choice depends on them; whether others are depends on the server's options.
    """
    for name, provider in settings.providers.items():
        if (pool := provider.pool) is None or pool.picker or (table := pool.metrics_of(provider.kind)) == "none":
            continue
        if pool.service is not None:
            yield Diagnosis("pool", None, f"{name}: the gateway alone knows the servers of {pool.service}")
            continue
        usual = host_port(provider.url.hostname or "", port_of(provider.url))
        for place in (pool.endpoints or [usual])[:_SHOWN]:
            host, _, port = place.rpartition(":")
            url = f"{provider.url.scheme}://{host}:{pool.metrics_port or port}/metrics"
            try:
                status, _, page = ask_whole(url, timeout=_TIMEOUT, most=servers.MOST_PAGE, verify=False)
            except (OSError, ValueError, AnswerError) as error:
                yield Diagnosis("pool", None, f"{name}: {url} does not answer here ({_reason(error)})")
                continue
            absent = servers.read(page, table).absent
            if status != 200 or {"waiting", "running"} & {*absent}:
                text = (
                    f"{name}: {url} lacks {', '.join(absent)}" if status == 200 else f"{name}: {url} answers {status}"
                )
                yield Diagnosis("pool", True, text, "see `metrics` and `metrics_port`, and the options of the server")
            else:
                hint = f"it lacks {', '.join(absent)}: the gateway takes them as unknown" if absent else ""
                yield Diagnosis("pool", False, f"{name}: {url} has the metrics of {table}", hint)


def _status(url: str) -> Iterator[Diagnosis]:
    """Checks of health, and of settings that the gateway has not applied."""
    for path in ("/healthz", "/readyz"):
        try:
            status, _, data = ask_whole(url + path, timeout=_TIMEOUT, most=_MOST)
        except (OSError, AnswerError) as error:
            hint = "is the processor up? A changed `status` binds at its restart"
            yield Diagnosis("processor", True, f"{url} does not answer ({_reason(error)})", hint)
            return
        reason, *remarks = data.decode(errors="replace").splitlines() or [""]
        yield Diagnosis("processor", status != 200, f"{path}: {reason}")
        for remark in remarks:
            yield Diagnosis("processor", None if "is being read" in remark else True, remark, _remedy(remark, _REMARKS))


def _listener(url: str, settings: Settings, key: str | None) -> Iterator[Diagnosis]:
    """Checks with requests through Envoy: none may pass without a key that the gateway knows."""
    for name, given in (("no key", None), ("an unknown key", _STRANGER), ("the given key", key)):
        if name == "the given key" and given is None:
            yield Diagnosis("listener", None, "whether a key is accepted is not known", "give one: --key env:NAME")
            continue
        headers = {} if given is None else {"authorization": f"Bearer {given}"}
        sent = time.time()
        try:
            status, answered, data = ask_whole(f"{url}/v1/models", None, headers, timeout=_TIMEOUT, most=_MOST)
        except (OSError, AnswerError) as error:
            reason = _reason(error)
            yield Diagnosis("listener", True, f"{url} does not answer ({reason})", _remedy(reason, _UNREACHED))
            return
        if given is None:
            yield _clock(answered.get("date", ""), sent, time.time())
        accepts = (given is not None and given == key) or (given is None and not settings.auth.required)
        wanted = 200 if accepts else 401
        hint = "" if status == wanted else _WHY.get((wanted, status), f"the answer should be {wanted}")
        said = message(data) if accepts and status != wanted else ""
        yield Diagnosis("listener", status != wanted, f"{name}: status {status}{said and f' ({said})'}", hint)
        if status != wanted:  # the address may not be the gateway's, so the key is not sent to it
            return


_UNREACHED = {
    "certificate has expired": "see `tls` above",
    "CERTIFICATE_VERIFY_FAILED": "give --listener the name in the certificate; an authority of your own is given as "
    "SSL_CERT_FILE=ca.pem",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: is it http://, or another port?",
    "closed connection": "does it speak TLS? Then write https://",
    "": "is Envoy up, and is this its address? See its log",
}
"""Remedies for a listener that does not answer, by a part of the reason."""
_REMARKS = {
    " is away": "its supervisor starts it again: see the log",
    "certificate": "put files that fit into their places, with a rename: docs/reload.md",
    "bind at a restart": "restart the gateway",
    "Envoy refuses": "correct the settings",
    "is being read": "a file of thousands of entries takes seconds: ask again",
    "has not got them yet": "ask again in some seconds; is Envoy up?",
    "": "restart it, or correct the settings",
}
"""Remedies for a line of `/readyz`, by a part of it."""
_WHY = {
    (401, 200): "the address bypasses the gateway: anybody can use it",
    (200, 401): "the running gateway does not accept this key: see `consumers`, and `extproc check`",
    (401, 500): "Envoy does not reach the processor: see its log",
    (401, 503): "Envoy does not reach the processor: see its log",
}


def _clock(date: str, sent: float, received: float) -> Diagnosis:
    """The check of the clock of the listener's machine, whose answer was written between `sent` and `received`."""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return Diagnosis("clock", None, "the listener's answer has no date")
    off = max(sent - 1 - theirs, theirs - received, 0.0)  # `Date` leaves out the part of a second
    hint = "tokens expire and budgets begin at other times there: set the clocks (NTP)"
    return Diagnosis("clock", off > _CLOCKS, f"differs by {off:.0f} s from the listener's", hint * (off > _CLOCKS))


def _admin(gateway: AdminClient) -> Iterator[Diagnosis]:
    """Findings that the running gateway reports itself."""
    gateway.timeout = _TIMEOUT
    try:
        gateway.json("/me")
        about = gateway.json("/openapi.json")
    except (OSError, ValueError) as error:
        yield Diagnosis("admin", True, str(error), _remedy(str(error), _UNANSWERED))
        yield Diagnosis("admin", None, "version, counters and ledger are not examined without the admin API")
        return
    gateway.timeout = _STORES
    yield _version(about)
    yield from _stores(gateway)


_UNANSWERED = {
    "admin token": "the token of the settings, or of --token, is not that of the running gateway",
    "refuses": "is this the admin API of a gateway? Give its address as --url",
    "is no JSON": "is this the admin API of a gateway? Give its address as --url",
    "": "is the processor up, and is this its admin API? Give another address as --url",
}
"""Remedies for an admin API that does not answer, by a part of the reason."""


def _version(about: Mapping[str, Any]) -> Diagnosis:
    """The check of the gateway's release: only an equal release of this command reads the settings as the
    gateway does.
    """
    try:
        running = str(about["info"]["version"])
    except (KeyError, TypeError):
        return Diagnosis("version", None, "the gateway does not tell its version")
    if running == __version__:
        return Diagnosis("version", False, f"the gateway is {running}")
    hint = "run the command of the gateway's own installation: settings may mean something else there"
    return Diagnosis("version", True, f"the gateway is {running}, this command is {__version__}", hint)


def _envoy(path: str) -> Diagnosis:
    """The check of Envoy's release, read from its admin socket."""
    try:
        told = msgspec.json.decode(_drain.ask(path, "GET", "/server_info"))["version"].split("/")[1]
        running = tuple(map(int, told.split(".")[:2]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        hint = "give the socket of `extproc envoy --admin-socket`, and run as Envoy's user"
        return Diagnosis("envoy", True, f"{path} does not tell Envoy's version ({type(error).__name__})", hint)
    wanted = ".".join(map(str, ENVOY))
    hint = f"use Envoy {wanted}" if running < ENVOY else "" if running == ENVOY else f"tested with {wanted}"
    return Diagnosis("envoy", running < ENVOY, f"Envoy is {told}", hint)


def _certificates(settings: Settings, url: str) -> Iterator[Diagnosis]:
    """Checks of the certificate in the settings, and of those that Envoy and `url` show: clients refuse an expired
    certificate.
    """
    tls, own, door = settings.listener.tls, b"", ""
    if tls is not None:
        certificate, key = tls.files
        door = local_url(settings.listener.address, settings.listener.port, "https")
        try:
            text = misfit(certificate, key) or ending(dates(certificate), time.time(), tls.certificate)
            own = encoded(certificate)
        except CertificateError as error:
            yield Diagnosis("tls", None, str(error), "examine it where Envoy reads it")
        else:
            yield Diagnosis("tls", bool(text), text or f"{tls.certificate} fits its key", _RENEW if text else "")
    for address in dict.fromkeys((door, url)):
        if address.startswith("https:"):
            yield from _check_shown_certificate(address, own if address == door else b"")


def _check_shown_certificate(url: str, own: bytes) -> Iterator[Diagnosis]:
    """The check of the certificate that clients get, which should be `own`."""
    try:
        shown = served(url, _TIMEOUT)
        text = ending(dates_of(shown, url), time.time(), f"the certificate that {url} shows")
    except (OSError, ValueError, CertificateError):
        return  # the check of the listener reports that
    if text or not own or own == shown:
        yield Diagnosis("tls", bool(text), text or f"the certificate that {url} shows is valid", _RENEW if text else "")
    else:
        text = f"{url} shows another certificate than that of the settings"
        yield Diagnosis("tls", True, text, f"{_RENEW}. Envoy's log has what it refuses")


_RENEW = "rename a certificate and its key into their places: Envoy takes them at once, see docs/reload.md"


def _stores(gateway: AdminClient) -> Iterator[Diagnosis]:
    """Checks of the stores, through the running gateway."""
    found: Mapping[str, Any] = {}
    unknown = ""
    try:
        found = gateway.json("/stores")
    except (OSError, ValueError) as error:  # the gateway has another release, or waits for a store
        unknown = str(error)
    today = [("start", datetime.now(UTC).date().isoformat())]
    for name, path, parameters in (("counters", "/budgets", []), ("ledger", "/usage", today)):
        told = found.get(name) or {}
        problem, remark = str(told.get("problem", "")), str(told.get("remark", ""))
        try:
            gateway.json(path, parameters)
        except (OSError, ValueError) as error:
            text = f"{error}: {problem}" if problem else str(error)
            yield Diagnosis(name, True, text, _remedy(text, _STORE))
            continue
        if problem:
            text = f"the gateway reads the store, but cannot write it: {problem}"
            yield Diagnosis(name, True, text, _remedy(problem, _STORE))
        elif remark:
            yield Diagnosis(name, True, remark, "the least used budgets vanish when memory is short, and begin at zero")
        elif told:
            yield Diagnosis(name, False, "the gateway reads and writes the store")
        else:
            yield Diagnosis(name, None, f"the gateway reads the store; whether it writes it is not known: {unknown}")


_STORE = {
    "ReadOnlyError": "it is a replica: give the address of the primary, or promote it",
    "ReadOnlySqlTransaction": "it is a standby, or set to read only: give the address of the primary",
    "OutOfMemory": "it is full: raise its maxmemory",
    "AuthenticationError": "the password is wrong, or missing in the address: ?password=file:/path",
    "AuthenticationWrongUsername": "the user of the address is unknown there, or its password is wrong",
    "NoPermission": "the user of the address may not run the gateway's commands: docs/budgets.md",
    "InsufficientPrivilege": "the database's user may not write its tables: GRANT, or make it their owner",
    "readonly": "the file, its folder or its file system cannot be written: check their owner and the mount",
    "READONLY": "the file, its folder or its file system cannot be written: check their owner and the mount",
    "disk is full": "make room on the disk of the file",
    "SQLITE_FULL": "make room on the disk of the file",
    "locked": "another program holds the file: find it with fuser or lsof",
    "SQLITE_BUSY": "another program holds the file: find it with fuser or lsof",
    "DiskFull": "make room on the server's disk",
    "cannot connect": "is the server up? Check host, port and TLS of the address, and firewalls between",
    "OperationalError": "is the server up? Check host, port, user and password of the address, and its log",
    "": "the gateway's log names the cause",
}
"""Remedies for a store that cannot be written, by a part of the reason."""


def _remedy(text: str, remedies: Mapping[str, str]) -> str:
    return next(remedy for part, remedy in remedies.items() if part in text)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
