"""Time to the first byte of late answers: a slow or throttled server shows here, whatever it reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.routing.pools.endpoint import Endpoint
    from extproc.routing.pools.picker import Facts

_HALF = 1.0  # seconds at which the score is a half


def score(endpoint: Endpoint, _facts: Facts, /) -> float:
    return _HALF / (_HALF + endpoint.first_byte)


def why(endpoint: Endpoint, _facts: Facts, /) -> str:
    return f"{endpoint.first_byte:.2f} s" if endpoint.first_byte else "unknown"
