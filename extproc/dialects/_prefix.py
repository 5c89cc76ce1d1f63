"""The beginning that the requests of one conversation share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MOST = 8  # turns in front of the first one of the user


def prefix(body: Mapping[str, Any], before: Sequence[str], turns: str) -> tuple[Sequence[Any], Sequence[Any]]:
    """(fields `before` and the system's turns, the turns up to the first one of the user). `turns` is a list or text.

    Every next request of the conversation has the same, unless the client changes it.
    """
    steady = [body[name] for name in before if body.get(name)]
    said = body.get(turns)
    if not isinstance(said, list):
        return steady, [said] if said else []
    opening: list[Any] = []
    for turn in said[:_MOST]:
        role = turn.get("role") if isinstance(turn, dict) else None
        if role in ("system", "developer") and not opening:
            steady.append(turn)
            continue
        opening.append(turn)
        if role == "user":
            break
    return steady, opening
