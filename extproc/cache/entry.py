"""A kept answer, and its form in a store: packed, compressed, and encrypted off memory."""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import Protocol

import msgspec

LEAST = 1024
"""Bytes below which compression gains nothing."""
MOST = 64 << 20
"""Most bytes of an entry after decompression."""
_PLAIN, _DEFLATED = b"\0", b"\1"
_NONCE = 12  # bytes


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """A kept answer. In shadow mode it has no body."""

    stored: float  # seconds since the epoch
    body: bytes  # the provider's answer in the client's API, before guardrails
    dialect: str = ""
    stream: bool = False
    deployment: str = ""  # deployment that served
    cost: int | None = None  # nano-USD; None: the price is unknown
    score: float | None = None  # score of the answered question, if its words differ

    @property
    def is_shadow(self) -> bool:
        return not self.body


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def pack(entry: Entry) -> bytes:
    data = _encode(entry)
    return _PLAIN + data if len(data) < LEAST else _DEFLATED + zlib.compress(data, 1)


def unpack(packed: bytes) -> Entry | None:
    """The entry; None if it is damaged, or of another release."""
    try:
        if packed[:1] == _DEFLATED:
            inflate = zlib.decompressobj()
            data = inflate.decompress(packed[1:], MOST)
            if not inflate.eof:
                return None
        else:
            data = packed[1:]
        return _decode(data)
    except (zlib.error, msgspec.DecodeError):
        return None


class EntrySeal(Protocol):
    """Encrypts entries for a store. An entry is bound to its `key`: under another key it cannot be opened."""

    def close(self, key: bytes, packed: bytes) -> bytes: ...

    def open(self, key: bytes, sealed: bytes) -> bytes | None: ...


class NoSeal:
    """No encryption, for a store in this process's memory."""

    def close(self, key: bytes, packed: bytes) -> bytes:  # noqa: ARG002
        return packed

    def open(self, key: bytes, sealed: bytes) -> bytes | None:  # noqa: ARG002
        return sealed


class Sealed:
    """AES-256-GCM with a random nonce for each entry, and the entry's key as associated data."""

    def __init__(self, secret: bytes) -> None:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - takes 7 MB, and few gateways keep entries outside
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        self._altered = InvalidTag
        self._cipher = AESGCM(hashlib.blake2b(secret, person=b"extproc entries", digest_size=32).digest())

    def close(self, key: bytes, packed: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, packed, key)

    def open(self, key: bytes, sealed: bytes) -> bytes | None:
        """The entry's bytes; None if it was written with another secret, under another key, or changed."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], key)
        except (self._altered, ValueError):
            return None
