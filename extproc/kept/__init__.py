"""Objects that providers keep, such as stored responses: the ids that clients get tell which target has them, so the
gateway keeps no list.

    resp_68d5…  ─Seal─►  resp_kept_<token>  ─Open, Recall─►  resp_68d5… at its provider

A token holds the provider, the target's name and the provider's id, encrypted and authenticated for one consumer
(synthetic IV: the tag is a keyed hash of the consumer and the content, and keys the stream that the content is masked
with). So another consumer cannot use it, a client learns no id of the provider, and the same object always has the same
id, at every replica.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from extproc.framing import Frame, Framing
from extproc.providers import ProviderSettings
from extproc.routing.catalog import Catalog
from extproc.words import contract
from extproc.words.chain import Chain, RetrySettings
from extproc.words.dialect import Ask
from extproc.words.errors import OBJECT_NOT_FOUND, Refusal
from extproc.words.exchange import Consumer, Exchange
from extproc.words.values import Secret

_MARK = "kept_"
_parts = re.compile(rf"([a-z]{{1,16}}[_-]){_MARK}([A-Za-z0-9_-]{{1,1024}})").fullmatch
_known = re.compile(r"([a-z]{1,16}[_-])[A-Za-z0-9_-]{1,256}").fullmatch
_anywhere = re.compile(rb'"(file-kept_[A-Za-z0-9_-]{1,1024})"').sub
_MARKED = b"-kept_"
_TAG = 16  # bytes
_BLOCK = hashlib.blake2b.MAX_DIGEST_SIZE
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[str, str, str, int, int]).decode


@dataclass(slots=True, frozen=True)
class Object:
    """An object at a provider: the target that made it, and the provider's id. Of a file with requests for a batch, the
    tokens that these come to, in and out.
    """

    provider: str
    target: str
    id: str
    input_tokens: int = 0
    output_tokens: int = 0


class Ids:
    """Ids of kept objects, sealed and opened. `key` seals all of them; without it the provider's own secret does."""

    def __init__(self, providers: Mapping[str, ProviderSettings], key: Secret | None) -> None:
        secret = key.read_or_last() if key is not None else None
        shared = None if secret is None else _derived(secret)
        self._keys: dict[str, bytes] = {}
        for name, provider in providers.items():
            own = shared
            if key is None and (found := provider.read_secret()):
                own = _derived(f"{found}\0{provider.url.geturl()}")
            if own is not None:
                self._keys[name] = own

    def able(self, provider: str) -> bool:
        """True when ids of this provider's objects can be sealed."""
        return provider in self._keys

    def digest(self, provider: str, consumer: str, data: bytes) -> str | None:
        """A name for `data` of a consumer at a provider, from which neither can be guessed; None without a secret."""
        key = self._keys.get(provider)
        return None if key is None else _tag(key, consumer, b"prefix" + data).hex()

    def seal(self, consumer: str, found: Object) -> str | None:
        """The id for a client; None for a provider without a secret, and for an id of an unusual form."""
        key, form = self._keys.get(found.provider), _known(found.id)
        if key is None or form is None:
            return None
        content = _pack((found.provider, found.target, found.id, found.input_tokens, found.output_tokens))
        tag = _tag(key, consumer, content)
        token = urlsafe_b64encode(tag + _masked(key, tag, content)).decode().rstrip("=")
        return f"{form[1]}{_MARK}{token}"

    def open(self, consumer: str, id: object) -> Object | None:
        """The object of a client's id; None for an id that this consumer did not get here."""
        form = _parts(id) if isinstance(id, str) else None
        if form is None:
            return None
        try:
            data = urlsafe_b64decode(form[2] + "=" * (-len(form[2]) % 4))
        except ValueError:
            return None
        tag, masked = data[:_TAG], data[_TAG:]
        for key in dict.fromkeys(self._keys.values()):
            content = _masked(key, tag, masked)
            if hmac.compare_digest(tag, _tag(key, consumer, content)):
                found = Object(*_unpack(content))
                return found if self._keys.get(found.provider) == key and found.id.startswith(form[1]) else None
        return None


def owner(consumer: Consumer) -> str:
    """The consumer that ids are bound to. A name that only a token told is another one than the same name in the
    settings.
    """
    return consumer.name if consumer.listed else f"\0{consumer.name}"


def is_sealed(id: object) -> bool:
    """Whether an id has the form of those that the gateway gives out."""
    return isinstance(id, str) and _parts(id) is not None


def _derived(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), digest_size=32, person=b"extproc kept").digest()


def _tag(key: bytes, consumer: str, content: bytes) -> bytes:
    name = consumer.encode(errors="surrogatepass")
    data = len(name).to_bytes(4, "big") + name + content
    return hashlib.blake2b(data, key=key, digest_size=_TAG, person=b"tag").digest()


def _masked(key: bytes, tag: bytes, content: bytes) -> bytes:
    """`content` combined with the stream of its tag; the same again gives it back."""
    stream = b"".join(
        hashlib.blake2b(tag + block.to_bytes(4, "big"), key=key, person=b"mask").digest()
        for block in range(-(-len(content) // _BLOCK))
    )
    return bytes(one ^ other for one, other in zip(content, stream, strict=False))


# --- stages


class Open:
    """For a call about a kept object: writes `ask`, `chain` and `targets`, and a request without a body. 404 for an id
    that the consumer did not get here.
    """

    def __init__(self, ids: Ids, catalog: Catalog) -> None:
        self._ids = ids
        self._catalog = catalog

    def __call__(self, exchange: Exchange) -> None:
        id = exchange.endpoint.id
        found = self._ids.open(owner(exchange.consumer), id)
        target = None if found is None else self._catalog.target(found.target)
        if found is None or target is None or target.provider != found.provider:
            raise _unknown(id)
        exchange.kept[found.id] = id
        exchange.object = found.id
        exchange.body, exchange.json = b"", {}
        query = dict(parse_qsl(exchange.request.path.partition("?")[2], max_num_fields=64))
        exchange.ask = Ask(model=target.name, free=True, stream=query.get("stream") == "true")
        exchange.ask.later = found.input_tokens, found.output_tokens
        exchange.chain = Chain((target,), _ONCE, target.name)
        exchange.targets = (target,)


_ONCE = RetrySettings(attempts=1)


class Recall:
    """Writes the provider's ids into a request that goes on from kept objects, and `keeper`, the provider that has
    them. 404 for an id that the consumer did not get here. Ids that the gateway did not give out stay as they are.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    def __call__(self, exchange: Exchange) -> None:
        for name in exchange.dialect.stored:
            id = exchange.json.get(name)
            if id is None or not is_sealed(id):
                continue
            found = self._ids.open(owner(exchange.consumer), id)
            if found is None:
                raise _unknown(id, name)
            exchange.kept[found.id] = id
            exchange.edits[name] = found.id
            exchange.keeper = found.provider
            if exchange.dialect.unnamed:
                _take_model(exchange, found)
        if exchange.dialect.stored and exchange.dialect.unnamed and not exchange.keeper:
            raise _unknown(str(exchange.json.get(exchange.dialect.stored[0])), exchange.dialect.stored[0])
        if _MARKED in exchange.body and not exchange.dialect.unnamed:
            self._recall_everywhere(exchange)

    def _recall_everywhere(self, exchange: Exchange) -> None:
        """Write the provider's ids of files into any place of a JSON body, where each is a string of its own."""

        def recalled(match: re.Match[bytes]) -> bytes:
            found = self._ids.open(owner(exchange.consumer), match[1].decode())
            if found is None or exchange.keeper not in ("", found.provider):
                return match[0]
            exchange.kept[found.id], exchange.keeper = match[1].decode(), found.provider
            return b'"%b"' % found.id.encode()

        body = _anywhere(recalled, exchange.body)
        if body != exchange.body:
            exchange.body, exchange.masked = body, True


def _take_model(exchange: Exchange, found: Object) -> None:
    """The model of a batch is that of its file, and so are the tokens that it comes to."""
    ask = exchange.ask
    ask.model = found.target
    ask.later = found.input_tokens, found.output_tokens
    ask.file_bytes, ask.file_tokens, ask.answer_tokens = len(exchange.body), *ask.later


def _unknown(id: str, param: str | None = None) -> Refusal:
    shown = id if len(id) <= 64 else f"{id[:64]}…"
    message = f"The gateway gave this consumer no object with the id {shown!r}, or its model or key is gone."
    return Refusal(OBJECT_NOT_FOUND, message, param=param)


class Seal:
    """A stage of events: clients get sealed ids in place of the provider's."""

    changes_length = True

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        translated = contract.TRANSLATED in exchange.response.headers and not exchange.attached
        return self._seals(exchange) and not translated

    def reason(self, exchange: Exchange) -> str:
        return "its provider keeps it, and its id is written anew" if self._seals(exchange) else ""

    def _seals(self, exchange: Exchange) -> bool:
        if exchange.kept:
            return True
        if not exchange.dialect.keeps(exchange.json):
            return False
        targets = exchange.targets if exchange.target is None else (exchange.target,)
        return any(self._ids.able(target.provider) for target in targets)

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        report, target, kept = exchange.report, exchange.target, exchange.kept
        assert report is not None, "Read wrote it"
        assert target is not None, "Origin found it"
        later = exchange.ask.later
        for id in report.kept:
            if id not in kept:
                made = Object(target.provider, target.name, id, *later)
                kept[id] = self._ids.seal(owner(exchange.consumer), made) or id
        for event in events if kept else ():
            for id, sealed in kept.items():
                _replace(event, id.encode(), sealed.encode())
        return events


def _replace(event: Any, old: bytes, new: bytes) -> None:
    if old in event.raw:
        event.raw = event.raw.replace(old, new)
        if event.data is not None:
            event.data = event.data.replace(old, new)
