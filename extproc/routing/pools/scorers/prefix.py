"""Share of the prompt that the server should have cached, by the blocks it served before.

The share counts as far as the server's own hit counters confirm such expectations. Blocks served before a restart are
gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.routing.pools.endpoint import Endpoint
    from extproc.routing.pools.picker import Facts


def matched(endpoint: Endpoint, facts: Facts) -> int:
    """Blocks of the prompt that the endpoint should have."""
    blocks, at = facts.held.get(endpoint.address, (0, 0.0))
    return blocks if at > endpoint.cold_since else 0


def score(endpoint: Endpoint, facts: Facts, /) -> float:
    if endpoint.address not in facts.held:
        return 0.0
    return endpoint.trust * matched(endpoint, facts) / len(facts.blocks)


def why(endpoint: Endpoint, facts: Facts, /) -> str:
    trusted = "" if endpoint.trust > 0.99 else f", {endpoint.trust:.0%} confirmed"
    return f"{matched(endpoint, facts)} of {len(facts.blocks)} blocks{trusted}"
