"""Stickiness: the endpoint that served the session before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.routing.pools.endpoint import Endpoint
    from extproc.routing.pools.picker import Facts


def score(endpoint: Endpoint, facts: Facts, /) -> float:
    return 1.0 if facts.session == endpoint.address else 0.0


def why(endpoint: Endpoint, facts: Facts, /) -> str:
    return "served it before" if score(endpoint, facts) else "new here"
