"""Texts of requests and answers, where the settings say `record`: the request as guardrails passed it on, the answer as
the provider gave it, before masks are taken back.

    request ─► Draw (share, match) ─► Collect (its events) ─► KeepText (without findings) ─► Recorder ─► the database

A text is compressed and encrypted with AES-256-GCM before it is written, bound to its exchange's id. What a guardrail
found is never kept in clear: a request with findings that are not masked is not recorded, and an answer with findings
is left out.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from extproc.words.exchange import FeatureKey
from extproc.words.values import Secret

__all__ = ["PAIRED", "TRAITS", "Recorder", "Sealed", "Text", "TextKeys", "Traits"]

_MOST_OPEN = 64 << 20  # most bytes of a text that is decompressed
_NONCE = 12
PAIRED = ("shadow", "replay")
"""Labels of exchanges that answer the same request as another, whose id they have in the label `…-of`."""
LEAST_SECRET = 16  # fewest characters of a secret


class Text(msgspec.Struct, frozen=True):
    """The texts of one exchange, in the form of the client's API. A streamed answer is its events."""

    request: bytes
    answer: bytes = b""
    cut: bool = False  # True: the request or the answer was longer than `record.most`
    withheld: bool = False  # True: a guardrail found something in the answer, which is left out
    path: str = ""  # the client's path, without its query


class Traits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Traits of an answer, for comparisons without its text.

    `refused`: by the finish, by a part for refusals, or by how refusals in English begin. `malformed`: an answer
    that had to be JSON, or the arguments of a call, are no JSON or break their schema; None: nothing had to be.
    `calls`: the called tools, each as its name and a digest of the arguments, sorted; None: no tools were offered.
    """

    refused: bool = False
    malformed: bool | None = None
    calls: tuple[str, ...] | None = None


TRAITS: FeatureKey[Traits] = FeatureKey("traits")


class Sealed(NamedTuple):
    """A text as it is stored. `time` in epoch seconds, `key` names the secret, `content` is base64."""

    id: str
    time: float
    consumer: str
    key: str
    content: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Text).decode


class TextKeys:
    """Seals and opens texts with the secrets of the settings."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        found = [secret.read_or_last() for secret in secrets]
        self._keys = {
            hashlib.blake2b(key, digest_size=8, person=b"record name").hexdigest(): key
            for key in (_derived(secret) for secret in found if secret and len(secret) >= LEAST_SECRET)
        }
        self._first = next(iter(self._keys), "") if found and found[0] else ""

    @property
    def able(self) -> bool:
        """True when texts can be sealed: the first secret is set, and long enough."""
        return bool(self._first)

    def seal(self, id: str, time: float, consumer: str, text: Text) -> Sealed:
        """Seal a text. Blocks for about 5 ms a MiB."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 7 MB, where texts are recorded

        nonce = os.urandom(_NONCE)
        content = zlib.compress(_encode(text), 1)
        sealed = nonce + AESGCM(self._keys[self._first]).encrypt(nonce, content, id.encode())
        return Sealed(id, time, consumer, self._first, b64encode(sealed).decode())

    def open(self, sealed: Sealed) -> Text | None:
        """The text; None if its secret is not among those of the settings, or if it was changed."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        key, data = self._keys.get(sealed.key), b64decode(sealed.content)
        if key is None:
            return None
        try:
            content = AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], sealed.id.encode())
        except InvalidTag:
            return None
        return _decode(zlib.decompressobj().decompress(content, _MOST_OPEN))


def _derived(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), digest_size=32, person=b"extproc record").digest()


class Recorder:
    """The texts of one process that are not written yet, and the bytes of those that are still collected."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, float, str, Text]] = []
        self.size = 0  # bytes of texts that wait, and of those that are collected

    def put(self, id: str, time: float, consumer: str, text: Text) -> None:
        """Let a text wait for `take`. Its bytes are counted in `size` already."""
        self._waiting.append((id, time, consumer, text))

    def take(self) -> Sequence[tuple[str, float, str, Text]]:
        """All texts that wait, which wait no longer; the caller lowers `size` when they are written."""
        taken, self._waiting = self._waiting, []
        return taken


def bytes_of(texts: Sequence[tuple[str, float, str, Text]]) -> int:
    """Bytes of taken texts."""
    return sum(len(text.request) + len(text.answer) for *_, text in texts)
