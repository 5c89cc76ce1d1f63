"""Free share of the KV cache: a full one makes requests wait, and evicts prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.routing.pools.endpoint import Endpoint
    from extproc.routing.pools.picker import Facts


_ROOMY = 0.5  # share in use up to which all is well: the rest of the cache holds prefixes


def score(endpoint: Endpoint, _facts: Facts, /) -> float:
    used = endpoint.report.kv_cache or 0.0
    return 1.0 if used <= _ROOMY else max(0.0, (1.0 - used) / (1.0 - _ROOMY))


def why(endpoint: Endpoint, _facts: Facts, /) -> str:
    used = endpoint.report.kv_cache
    return "unknown" if used is None else f"{used:.0%} in use"
