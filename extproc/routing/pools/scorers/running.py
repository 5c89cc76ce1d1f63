"""Requests in the server, with those sent since its last report: a larger batch is slower for each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.routing.pools.endpoint import Endpoint
    from extproc.routing.pools.picker import Facts

_HALF = 8.0  # requests at which the score is a half


def score(endpoint: Endpoint, _facts: Facts, /) -> float:
    return _HALF / (_HALF + endpoint.load)


def why(endpoint: Endpoint, _facts: Facts, /) -> str:
    return f"{endpoint.load:.0f} in the server"
