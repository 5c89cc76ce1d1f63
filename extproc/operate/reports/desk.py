"""The operators' desk: gateway keys, the catalogue of models, the audit trail. Methods block and are for threads."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from extproc.access.auth import Access, IssuedKey, hash_key, make_key
from extproc.money.accounting.alerts import moment
from extproc.money.ledger import LedgerError
from extproc.money.texts import TextKeys
from extproc.operate.reports import ReportError
from extproc.operate.reports.settings_file import Checks, SettingsFile
from extproc.operate.telemetry.audit import act
from extproc.routing.catalog import Catalog
from extproc.upstream.prices import per_million
from extproc.wire.outbound.client import AnswerError, ask_whole
from extproc.words.exchange import Target
from extproc.words.urls import host_port
from extproc.words.values import is_loopback

if TYPE_CHECKING:
    from extproc.money.ledger.ledger import Ledger
    from extproc.settings.config import Settings

_CHAT = "/v1/chat/completions"
_PLAY = 120.0  # most seconds for a request of the playground
_MOST_PLAYED = 1 << 20  # most bytes of an answer in the playground
log = logging.getLogger(__name__)


class Desk:
    """The desk. `settings` and `catalog` give those in force; `checker` runs `extproc check`. Methods raise ReportError
    and LedgerError.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: Callable[[], Settings],
        catalog: Callable[[], Catalog],
        *,
        checker: Checks,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._operators, self._trail, self._texts = ledger.operators, ledger.trail, ledger.texts
        self._settings = settings
        self._catalog = catalog
        self.explain = checker.explain
        self.file = SettingsFile(checker, lambda: settings().admin.apply_settings)
        self._now = now
        self._begun = time.time()
        self._ended: Collection[str] | None = None  # ended sessions in the ledger; None: not read yet
        self._ended_here: dict[str, float] = {}  # sessions ended here -> time of their expiry
        self._untold: dict[str, float] = {}  # ended sessions not yet written to the ledger

    # --- sessions

    def end_session(self, id: str, until: float) -> None:
        """End an operator's session, in this process at once, in others within seconds. If the ledger does not answer,
        the end is written later. Raises nothing.
        """
        now = self._now()
        self._ended_here = {**{known: at for known, at in self._ended_here.items() if at > now}, id: until}
        self._untold = {**self._untold, id: until}
        self.read_sessions()

    def has_ended(self, id: str, begun: float) -> bool:
        """True for an ended session. Until the ledger was read once, sessions from before the start of this process
        count as ended. Does not block.
        """
        if id in self._ended_here:
            return True
        return begun < self._begun if self._ended is None else id in self._ended

    def read_sessions(self) -> None:
        """Write ended sessions to the ledger, and read those of other processes. If the ledger does not answer, known
        ones stay.
        """
        try:
            for id, until in list(self._untold.items()):
                self._operators.end_session(id, until, self._now())
                self._untold.pop(id, None)
            self._ended = frozenset(self._operators.ended_sessions())
        except LedgerError as error:
            if self._untold:
                log.warning("other replicas do not know yet of a session that was ended: %s", error)

    # --- keys

    def keys(self) -> Sequence[Mapping[str, Any]]:
        """The keys of the settings, then the keys that operators made, the latest first."""
        known = {settings.name: settings for settings in self._settings().consumers}
        made = [self._key_answer(key, known) for key in reversed(self._operators.keys())]
        return [*self._of_settings(), *made]

    def issue(self, consumer: str, name: str, expires_in: float | None, actor: str) -> Mapping[str, Any]:
        """Make a key. Only this answer has the key itself."""
        settings = self._settings()
        known = {entry.name: entry for entry in settings.consumers}
        if consumer not in known:
            raise ReportError(404, f"there is no consumer {consumer!r} in the settings")
        taken = {str(key["name"]) for key in self.keys() if key["consumer"] == consumer and key["state"] != "revoked"}
        if name in taken:
            raise ReportError(409, f"consumer {consumer!r} has a key {name!r}: choose another name, or revoke that key")
        secret = settings.auth.read_key_secret()
        if secret is None:
            raise ReportError(409, "keys are stored as hashes: set auth.key_secret in the settings first")
        key, now = make_key(), self._now()
        until = None if expires_in is None else now + expires_in
        id, digest = uuid.uuid4().hex[:16], hash_key(key, secret)
        made = IssuedKey(id, digest, consumer, name, now, actor, until, ending=key[-4:])
        self._operators.add(made)
        return {**self._key_answer(made, known), "key": key}

    def revoke_key(self, id: str) -> bool:
        """Revoke a key that an operator made. False: no key has that id, or it was revoked before."""
        return self._operators.revoke(id, self._now())

    def _key_answer(self, key: IssuedKey, known: Mapping[str, Any]) -> Mapping[str, Any]:
        state = "active"
        if key.revoked is not None:
            state = "revoked"
        elif key.expires is not None and key.expires <= self._now():
            state = "expired"
        elif key.consumer not in known or known[key.consumer].disabled:
            state = "disabled"
        return {
            "id": key.id,
            "origin": "console",
            "consumer": key.consumer,
            "name": key.name,
            "ending": key.ending,
            "state": state,
            "created": moment(key.created),
            "created_by": key.created_by,
            "expires_at": None if key.expires is None else moment(key.expires),
        }

    def _of_settings(self) -> Iterator[Mapping[str, Any]]:
        today = moment(self._now())[:10]
        for consumer in self._settings().consumers:
            for index, key in enumerate(consumer.keys):
                days = [day for day in (consumer.expires, key.expires) if day is not None]
                until = min(days, default=None)
                gone = until is not None and until.isoformat() <= today
                disabled = key.disabled or consumer.disabled
                yield {
                    "id": "",
                    "origin": "settings",
                    "consumer": consumer.name,
                    "name": key.name or str(index),
                    "ending": "",
                    "state": "disabled" if disabled else "expired" if gone else "active",
                    "created": None,
                    "created_by": "",
                    "expires_at": None if until is None else f"{until}T00:00:00Z",
                }

    # --- models

    def models(self, consumer: str | None) -> Sequence[Mapping[str, Any]]:
        """The names that clients may give, with targets, prices and the number of consumers that may use them; with
        `consumer`, only names that it may use.
        """
        settings, catalog = self._settings(), self._catalog()
        access = Access(settings.teams, settings.groups)
        grants = [access.consumer(entry) for entry in settings.consumers if not entry.disabled]
        if consumer is not None:
            grants = [who for who in grants if who.name == consumer]
        found = []
        for name in [*catalog.names(), *(pattern for pattern, _ in catalog.wildcards())]:
            may = [who for who in grants if who.may_use(name)]
            if consumer is None or may:
                found.append({"name": name, "consumers": len(may), **self._described(name)})
        return found

    def _described(self, name: str) -> Mapping[str, Any]:
        catalog, virtual = self._catalog(), self._settings().virtual_models.get(name)
        chain = None if "*" in name else catalog.resolve(name)
        targets = [self._target(target) for target in (chain.targets if chain is not None else ())]
        return {"strategy": "" if virtual is None else ", ".join(virtual.strategy), "targets": targets}

    def _target(self, target: Target) -> Mapping[str, Any]:
        away, price = self._catalog().unavailable(target), target.price
        return {
            "name": target.name,
            "provider": target.provider,
            "model": target.model,
            "context": target.context,
            "output_limit": target.max_output_tokens,
            "unavailable": "" if away is None else away[1],
            "usd_per_million": None if price is None else per_million(price),
            "price_version": "" if price is None else price.version,
        }

    # --- the gateway itself

    def door(self) -> Mapping[str, Any]:
        """The listener for clients, and a model to try."""
        listener = self._settings().listener
        return {"port": listener.port, "tls": listener.tls is not None, "model": next(self._catalog().names(), "")}

    def trace_link(self) -> str:
        """The address of a request's trace, with `{id}` in place of the request's id; empty without one."""
        traces = self._settings().telemetry.traces
        return "" if traces is None else traces.link or ""

    def play(self, key: str, body: bytes, sink: Callable[[bytes], None] | None = None) -> Mapping[str, Any]:
        """The answer to a chat request, sent through the listener with a gateway key as a client would. `sink` receives
        the pieces of a streamed answer.
        """
        listener = self._settings().listener
        host = "127.0.0.1" if listener.address in ("0.0.0.0", "::") else listener.address  # noqa: S104 - compared
        url = f"http{'s' if listener.tls else ''}://{host_port(host, listener.port)}{_CHAT}"
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "accept-encoding": "identity"}
        begun = time.monotonic()
        try:
            verify = not is_loopback(host)  # the certificate has the clients' name, not the loopback address
            status, told, content = ask_whole(
                url, body, headers, timeout=_PLAY, most=_MOST_PLAYED, verify=verify, sink=sink
            )
        except AnswerError:
            raise ReportError(503, "the answer ended early: the provider broke it off, or the gateway stops") from None
        except TimeoutError:
            raise ReportError(503, f"there was no whole answer in {_PLAY:.0f} seconds") from None
        except OSError as error:
            if "certificate" in str(error).lower():
                message = "the listener's certificate does not fit its address here, or it wants one of the client"
                raise ReportError(503, message) from None
            raise ReportError(503, "the gateway's listener does not answer here") from None
        except ValueError:
            raise ReportError(409, "the key cannot be sent in a header") from None
        return {
            "status": status,
            "ms": round((time.monotonic() - begun) * 1000),
            "headers": {name: value for name, value in told.items() if name.startswith(("x-ai-", "x-request-id"))},
            "content": content[:_MOST_PLAYED].decode(errors="replace"),
            "cut": len(content) > _MOST_PLAYED,
        }

    # --- texts

    def texts(self, id: str) -> Mapping[str, Any]:
        """The recorded texts of an exchange, by its id. Raises ReportError if there are none, or no key opens them."""
        record = self._settings().record
        if (sealed := self._texts.find(id)) is None:
            raise ReportError(404, "no text of this exchange is recorded")
        found = TextKeys(() if record is None else record.keys).open(sealed)
        if found is None:
            raise ReportError(409, "none of record.keys opens this text")
        return {
            "id": id,
            "recorded_at": moment(sealed.time),
            "consumer": sealed.consumer,
            "path": found.path,
            "request": found.request.decode(errors="replace"),
            "answer": found.answer.decode(errors="replace"),
            "cut": found.cut,
            "withheld": found.withheld,
        }

    # --- the trail

    def record(self, actor: str, role: str, action: str, detail: Mapping[str, Any]) -> None:
        """Write an act into the trail, and into the log."""
        log.info("operator %r (%s): %s %s", actor, role, action, dict(detail))
        try:
            self._trail.append([act(actor, role, action, detail, self._now())])
        except LedgerError as error:
            log.error("the audit trail has no entry of it: %s", error)  # noqa: TRY400 - the act is done

    def trail(self, limit: int, before: int | None) -> Sequence[Mapping[str, Any]]:
        """Entries of the audit trail, the latest first."""
        return [
            {
                "number": entry.number,
                "hash": entry.hash,
                "event": msgspec.json.decode(entry.event) if entry.event else {},
            }
            for entry in self._trail.latest(limit, before)
        ]
