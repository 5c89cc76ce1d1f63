"""Responses that a double keeps: read, deleted, cancelled, and their input.

Sources: https://developers.openai.com/api/reference/resources/responses/methods/retrieve, .../delete, .../cancel,
https://developers.openai.com/api/reference/resources/responses/subresources/input_items
"""

from __future__ import annotations

import re

from tests.doubles.answers import Json, Refused

_MOST = 1000
_LOOKS = 2  # at the second one a response in the background has ended
_kept: dict[tuple[str, str], Json] = {}
"""By the double's name and the id: the response and its input."""

_path = re.compile(r"/v1/responses/([A-Za-z0-9_-]+)(/cancel|/input_items)?").fullmatch


def keep(name: str, response: Json, items: list[Json]) -> None:
    _kept[name, response["id"]] = {"response": response, "input": items, "looks": 0}
    while len(_kept) > _MOST:
        del _kept[next(iter(_kept))]


def keeps(name: str, id: str) -> bool:
    return (name, id) in _kept


def call(name: str, method: str, path: str) -> Json | None:
    """The answer to a call about a response; None for another path."""
    match = _path(path)
    if match is None:
        return None
    id, verb = match[1], match[2]
    if not keeps(name, id):
        raise Refused(404, f"Response with id '{id}' not found.", code="not_found")
    found = _kept[name, id]
    match method, verb:
        case "GET", None:
            found["looks"] += 1
            running = found["response"].get("background") is True and found["looks"] < _LOOKS
            waits: Json = {"status": "in_progress", "output": [], "usage": None} if running else {}
            return dict(found["response"]) | waits
        case "DELETE", None:
            del _kept[name, id]
            return {"id": id, "object": "response", "deleted": True}
        case "POST", "/cancel":
            raise Refused(400, "Cannot cancel a synchronous response.", code="invalid_request")
        case "GET", "/input_items":
            items = [{"id": f"msg_{number}", **item} for number, item in enumerate(found["input"])]
            return {"object": "list", "data": items, "first_id": "msg_0", "last_id": "msg_0", "has_more": False}
    raise Refused(405, f"Not allowed to {method} on {path}.", code="method_not_allowed")
