"""Objects that providers keep, such as stored responses. The ids that clients get name the target that has the object,
so the gateway keeps no list.

    resp_68d5…  ─Seal─►  resp_kept_<token>  ─Open, Recall─►  resp_68d5… at its provider

A token holds the provider, the target's name and the provider's id, encrypted and authenticated for one consumer by
AES-SIV (RFC 5297), which needs no nonce. So another consumer cannot use it, a client learns no id of the provider, and
the same object always has the same id, at every replica.

Raw ids would be shorter, but anybody who sees one could use it. A dialect names the fields with ids (`Stored.objects`);
fields that hold an object's id in every API are found at any depth (`dialects._objects`).
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping

import msgspec

from extproc.upstream.providers import ProviderSettings
from extproc.words.dialect import KEPT
from extproc.words.exchange import Consumer
from extproc.words.values import Secret

_parts = re.compile(rf"([a-z]{{1,16}}[_/-]){KEPT}([A-Za-z0-9_-]{{1,1024}})").fullmatch
_known = re.compile(r"([a-z]{1,16}[_/-])[A-Za-z0-9_-]{1,256}").fullmatch
_DIGEST = 16  # bytes of a digest
_pack = msgspec.msgpack.Encoder().encode


class Object(msgspec.Struct, array_like=True, frozen=True):
    """An object at a provider: the target that made it, and the provider's id. A file with requests for a batch also
    has their tokens of input and output. An object whose usage is known later also has the exchange that made it.
    """

    provider: str
    target: str
    id: str
    input_tokens: int = 0
    output_tokens: int = 0
    made_by: str = ""


_unpack = msgspec.msgpack.Decoder(Object).decode


class Ids:
    """Seals and opens ids of kept objects. `key` seals all ids; without it each provider's own secret does."""

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
        if key is None:
            return None
        name = _bound(consumer)
        content = len(name).to_bytes(4, "big") + name + data
        return hashlib.blake2b(content, key=key, digest_size=_DIGEST, person=b"prefix").hexdigest()

    def seal(self, consumer: str, found: Object) -> str | None:
        """The id for a client; None for a provider without a secret, and for an id of an unusual form."""
        key, form = self._keys.get(found.provider), _known(found.id)
        if key is None or form is None:
            return None
        content = _pack(found)
        return f"{form[1]}{KEPT}{_token(_encrypted(key, content, _bound(consumer)))}"

    def open(self, consumer: str, id: object) -> Object | None:
        """The object of a client's id; None for an id that this gateway did not give to this consumer."""
        form = _parts(id) if isinstance(id, str) else None
        if form is None:
            return None
        for key, content in self._opened(form[2], _bound(consumer)):
            found = _unpack(content)
            return found if self._keys.get(found.provider) == key and found.id.startswith(form[1]) else None
        return None

    def seal_text(self, provider: str, id: str, text: str) -> str:
        """A token with `text`, for use with a sealed id of an object at the provider."""
        return _token(_encrypted(self._keys[provider], text.encode(errors="surrogateescape"), _beside(id)))

    def open_text(self, id: str, token: str) -> str | None:
        """The text of a token; None for one that `seal_text` did not make for this id."""
        opened = (content for _, content in self._opened(token, _beside(id)))
        return next((content.decode(errors="surrogateescape") for content in opened), None)

    def _opened(self, token: str, bound: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The key that opens a token, and its content; nothing where no key does."""
        try:
            data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return
        for key in dict.fromkeys(self._keys.values()):
            if (content := _decrypted(key, data, bound)) is not None:
                yield key, content


def owner(consumer: Consumer) -> str:
    """The consumer that ids are bound to. A name known only from a token is not equal to the same name in the
    settings.
    """
    return consumer.name if consumer.listed else f"\0{consumer.name}"


def is_sealed(id: object) -> bool:
    """True if an id has the form of the gateway's sealed ids."""
    return isinstance(id, str) and _parts(id) is not None


def _derived(secret: str) -> bytes:
    """A key of AES-256-SIV: 64 bytes."""
    return hashlib.blake2b(secret.encode(), person=b"extproc kept").digest()


def _token(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


# The functions import cryptography, which takes 7 MB: most gateways never seal an id.


def _encrypted(key: bytes, content: bytes, bound: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # noqa: PLC0415

    return AESSIV(key).encrypt(content, [bound])


def _decrypted(key: bytes, data: bytes, bound: bytes) -> bytes | None:
    """The content; None for data of another key or consumer."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # noqa: PLC0415

    try:
        return AESSIV(key).decrypt(data, [bound])
    except InvalidTag:
        return None


def _bound(consumer: str) -> bytes:
    """The associated data of a token: the consumer, whose name may hold lone surrogates."""
    return consumer.encode(errors="surrogatepass")


def _beside(id: str) -> bytes:
    """The associated data of a text beside an id. No consumer's name begins with two zero bytes."""
    return b"\0\0" + id.encode(errors="surrogatepass")
