"""Opaque texts that come back: signatures of thinking, redacted thinking, encrypted reasoning.

Every double accepts the seals of any double of the same vendor, as the real ones do across regions and resellers. Seals
of another vendor, and changed ones, are not accepted.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import blake2b

_MAC = 12  # bytes
_STANDARD = str.maketrans("-_", "+/")  # Google's clients write the URL-safe alphabet of base64


def seal(vendor: str, text: str) -> str:
    """Base64 that `unseal` reads. OpenAI's begins with gAAAA, like real ones."""
    sealed = b64encode(_mac(vendor, text.encode()) + text.encode()).decode()
    return _beginning(vendor) + sealed


def unseal(vendor: str, sealed: str) -> str | None:
    """The text, or None when no double sealed it for this vendor."""
    beginning = _beginning(vendor)
    if not sealed.startswith(beginning):
        return None
    text = sealed.removeprefix(beginning).translate(_STANDARD)
    try:
        data = b64decode(text, validate=True)
        text = data[_MAC:].decode()
    except ValueError:
        return None
    return text if data[:_MAC] == _mac(vendor, data[_MAC:]) else None


def _mac(vendor: str, data: bytes) -> bytes:
    return blake2b(data, digest_size=_MAC, key=b"mock " + vendor.encode()).digest()


def _beginning(vendor: str) -> str:
    return "gAAAAA" if vendor == "openai" else ""
