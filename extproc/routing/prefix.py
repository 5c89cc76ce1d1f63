"""The digest of a conversation's stable prefix: tools, system prompt, and the turns up to the first one of the user.

Providers cache the beginning of prompts for some minutes, each server for itself. Requests with the same digest should
go to the same target, and to the same server of it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from extproc.words.api import ClientAPI
from extproc.words.exchange import Exchange

_encode = msgspec.json.Encoder().encode


def prefix(exchange: Exchange) -> bytes:
    """The digest, 16 bytes; empty for a request without turns. Reads the body once."""
    found = exchange.route.prefix
    if found is None:
        found = exchange.route.prefix = digest_of(exchange.request.dialect, exchange.request.json)
    return found


def digest_of(dialect: ClientAPI, json: Any) -> bytes:
    """The digest of a request's body; empty for one without turns."""
    steady, opening = dialect.offers.reuse.prefix(json)
    try:
        data = _encode([steady, opening]) if opening else b""
    except (UnicodeEncodeError, RecursionError):
        data = b""
    return hashlib.blake2b(data, digest_size=16).digest() if data else b""
