"""The list of models, and one of them, for clients.

Source: https://platform.claude.com/docs/en/api/models-list
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from extproc.words.errors import INVALID_REQUEST, Refusal

_USUAL, _MOST = 20, 1000  # models of a page
_MOST_PARAMETERS = 16


def encode_models(models: Sequence[Mapping[str, Any]], query: str) -> dict[str, Any]:
    """One page. Raises Refusal (400) for a `limit` that the API has not."""
    try:
        asked = dict(parse_qsl(query, max_num_fields=_MOST_PARAMETERS))
        limit = int(asked.get("limit", _USUAL))
    except ValueError:
        limit = 0
    if not 1 <= limit <= _MOST:
        raise Refusal(INVALID_REQUEST, f"'limit' must be a whole number from 1 to {_MOST}.", param="limit")
    names = [model["id"] for model in models]
    start, end = 0, len(models)
    if (after := asked.get("after_id")) in names:
        start = names.index(after) + 1
    if (before := asked.get("before_id")) in names:
        end = names.index(before)
        start = max(start, end - limit)
    page = [encode_model(model) for model in models[start:end][:limit]]
    return {
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start > 0 if before in names else start + len(page) < end,
    }


def encode_model(model: Mapping[str, Any]) -> dict[str, Any]:
    created = datetime.fromtimestamp(model["created"], UTC).isoformat().replace("+00:00", "Z")
    return {"type": "model", "id": model["id"], "display_name": model["id"], "created_at": created}
