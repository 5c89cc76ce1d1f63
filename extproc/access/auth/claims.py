"""Tokens: the consumer behind the claims that Envoy's jwt_authn filter verified.

Envoy has checked signature, issuer, audience and time, and has taken the token out of the request. Its metadata, which
no client can write, holds for each issuer of the settings either its claims or the reason why it did not accept the
token.

The consumer of a token is found by a digest of what Envoy verified, not by the place of the issuer in the list:
connections that were open before a change of the issuers still bring claims of the old list. A token's consumer is
never one of the settings file by its name alone; the file lists the token's subject. Metrics call consumers that only
tokens name `other`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from extproc.access.auth.access import Access, Identity, ToolGrants, nothing
from extproc.access.auth.settings import MOST_LABEL, JWTSettings, cut
from extproc.words import contract
from extproc.words.errors import EXPIRED_KEY, INVALID_KEY, Refusal
from extproc.words.exchange import Consumer

_Claims = Mapping[str, Any]

_MOST_EXACT = (1 << 53) - 1  # claims arrive as doubles: larger integers may become equal
_MOST_GROUPS = 64
_EXPIRED, _OTHER_ISSUER = 3, 24  # statuses of Envoy's jwt_verify_lib


class Tokens:
    """Finds the consumer that a token names. A consumer of the settings is found only if it lists the name in
    `subjects`.
    """

    def __init__(
        self,
        issuers: Sequence[JWTSettings],
        subjects: Mapping[str, Identity],
        taken: frozenset[str],
        access: Access,
    ) -> None:
        self._issuers = [
            (contract.claims_key(issuer.mark), contract.failure_key(issuer.mark), issuer) for issuer in issuers
        ]
        self._subjects = subjects  # consumers of the settings by their subjects
        self._taken = taken  # names that no token's consumer may have
        self._access = access

    def find(self, token: Mapping[str, Any]) -> Iterator[Identity]:
        """The consumers in the verified tokens of a request. Raises Refusal (401) for a token that names none."""
        for key, _, issuer in self._issuers:
            claims = token.get(key)
            if isinstance(claims, Mapping) and claims.get("iss") == issuer.issuer:
                yield self._identity(issuer, claims)

    def refuse(self, token: Mapping[str, Any]) -> None:
        """Raise Refusal (401) with Envoy's reason for refusing the token, if it gave one."""
        failures = [token.get(key) for _, key, _ in self._issuers]
        told = [failure for failure in failures if isinstance(failure, Mapping)]
        told.sort(key=lambda failure: failure.get("code") == _OTHER_ISSUER)  # the reason of its own issuer comes first
        if not told:
            return
        if told[0].get("code") == _EXPIRED:
            raise Refusal(EXPIRED_KEY, "The token has expired: get a new one.")
        raise Refusal(INVALID_KEY, f"The token was not accepted: {told[0].get('message', 'it is not valid')}.")

    def _identity(self, issuer: JWTSettings, claims: _Claims) -> Identity:
        plain = _name(_claim(claims, issuer.consumer))
        if plain is None:
            message = f"The token's claim {issuer.consumer!r} does not name a consumer."
            raise Refusal(INVALID_KEY, message)
        name = issuer.prefix + plain
        labels = {label: _label(_claim(claims, path)) for label, path in issuer.labels.items()}
        known = self._subjects.get(name)
        if known is not None:
            who = known.consumer
            return replace(known, consumer=replace(who, labels={**labels, **who.labels})) if labels else known
        if name in self._taken:
            message = f"The token names the consumer {name!r}, whose `subjects` do not list it."
            raise Refusal(INVALID_KEY, message)
        consumer = _consumer(self._access, issuer, claims, name, labels)
        if (before := self._access.before) is not None:
            consumer = replace(consumer, before=_consumer(before, issuer, claims, name, labels))
        return Identity(consumer, f"{name}#jwt")


def _consumer(access: Access, issuer: JWTSettings, claims: _Claims, name: str, labels: Mapping[str, str]) -> Consumer:
    """A consumer known only by its token. If a claim should grant something and is missing, nothing is granted."""
    team = next((value for value in _values(claims, issuer.team) if value in access.teams), "")
    found = (value for value in _values(claims, issuer.groups) if value in access.groups)
    groups = tuple(dict.fromkeys(found))[:_MOST_GROUPS]
    lacking = (issuer.team and not team) or (issuer.groups and not groups)
    may_use = nothing if lacking else access.may_use(team, groups)
    tools = ToolGrants() if lacking else access.tools(team, groups)
    labels = {**labels, **access.labels(team)}
    return Consumer(name, team, labels, may_use, groups, listed=False, tools=tools, require=access.require(team))


def _claim(claims: _Claims, path: str) -> Any:
    """The claim of that name, or at that path: `realm_access.roles`. Names may contain dots, too. None: missing."""
    if path in claims:
        return claims[path]
    for index, letter in enumerate(path):
        inner = claims.get(path[:index]) if letter == "." else None
        if isinstance(inner, Mapping) and (value := _claim(inner, path[index + 1 :])) is not None:
            return value
    return None


def _values(claims: _Claims, path: str | None) -> Sequence[str]:
    value = None if path is None else _claim(claims, path)
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _name(value: Any) -> str | None:
    """A claim as a consumer's name. It is never cut or cleaned, or two consumers might become one."""
    text = _text(value)
    if text is None or not text.isprintable() or text != text.strip() or not 0 < len(text.encode()) <= MOST_LABEL:
        return None
    return text


def _label(value: Any) -> str:
    """A claim as a label's value; empty without the claim, so that no header replaces it."""
    text = str(value).lower() if isinstance(value, bool) else _text(value)
    return cut("".join(filter(str.isprintable, text or "")))


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST_EXACT
    return str(value) if whole else None
