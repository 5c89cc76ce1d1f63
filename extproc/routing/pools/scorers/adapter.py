"""LoRA adapter of the request: a server that has it loaded need not fetch it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.routing.pools.endpoint import Endpoint
    from extproc.routing.pools.picker import Facts


def score(endpoint: Endpoint, facts: Facts, /) -> float:
    return 1.0 if facts.adapter and facts.adapter in (endpoint.report.adapters or ()) else 0.0


def why(endpoint: Endpoint, facts: Facts, /) -> str:
    return "loaded" if score(endpoint, facts) else "not loaded" if facts.adapter else "none asked for"
