"""Requests that wait inside the server: each delays a new one by a step of its batch at least."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.routing.pools.endpoint import Endpoint
    from extproc.routing.pools.picker import Facts


_HALF = 4.0  # requests at which the score is a half: a report of a second ago says little about one or two


def score(endpoint: Endpoint, _facts: Facts, /) -> float:
    return _HALF / (_HALF + endpoint.waiting)


def why(endpoint: Endpoint, _facts: Facts, /) -> str:
    waiting = endpoint.report.waiting
    return "unknown" if waiting is None else f"{waiting:.0f} waiting"
