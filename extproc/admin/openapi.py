"""The admin API described in OpenAPI 3.1, served at /openapi.json. The tests hold the API to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from extproc import __version__
from extproc.words.exchange import OUTCOMES

Json = dict[str, Any]

USAGE_FIELDS = (
    *("consumer", "team", "key", "operation", "model", "target", "provider", "provider_model"),
    *("status", "error", "outcome", "stream", "usage_source"),
)
"""What the usage report groups and filters by, beside `label.<name>`."""

_TEXT: Json = {"type": "string"}
_PRINTABLE: Json = {"type": "string", "pattern": r"^[^\x00-\x1f\x7f]*$"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_TIME: Json = {"type": "string", "format": "date-time"}
_AMOUNT: Json = {
    "type": "string",
    "pattern": r"^-?[0-9]+(\.[0-9]+)?$",
    "description": "Exact: USD with decimals, or a whole number of requests or tokens",
}
_USD: Json = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$", "description": "Exact USD"}


def _object(properties: Mapping[str, Json], optional: Sequence[str] = (), description: str = "") -> Json:
    required = [name for name in properties if name not in optional]
    found = {"type": "object", "properties": properties, "required": required}
    return found | {"description": description} if description else found


def _list(item: str) -> Json:
    items = {"type": "array", "items": _ref(item)}
    return _object({"object": {"const": "list"}, "data": items})


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_NUMBERS: Mapping[str, Json] = {
    "requests": _COUNT,
    "refused": _COUNT | {"description": "By the gateway itself: no provider was called"},
    "errors": _COUNT,
    "input_tokens": _COUNT,
    "output_tokens": _COUNT,
    "cached_tokens": _COUNT,
    "cache_write_tokens": _COUNT,
    "reasoning_tokens": _COUNT,
    "cost_usd": _USD,
    "unpriced": _COUNT | {"description": "Requests whose price is unknown; they are not in cost_usd"},
}

_SCHEMAS: Mapping[str, Json] = {
    "Error": _object({"error": _object({"message": _TEXT, "code": _TEXT})}),
    "Usage": _object(
        {
            "object": {"const": "usage"},
            "start": _TIME,
            "end": _TIME | {"description": "Exclusive"},
            "resolution": {"enum": ["hour", "day", "month", "total"]},
            "group_by": {"type": "array", "items": _TEXT},
            "data": {"type": "array", "items": _ref("UsageRow")},
            "total": _object(_NUMBERS),
            "truncated": {"type": "boolean", "description": "There were more rows than a report has"},
        }
    ),
    "UsageRow": _object(
        {
            "start": _TIME,
            "end": _TIME,
            "group": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
            **_NUMBERS,
        }
    ),
    "Budget": _object(
        {
            "name": _TEXT,
            "unit": {"enum": ["requests", "tokens", "input_tokens", "output_tokens", "usd"]},
            "window": _TEXT,
            "limit": _AMOUNT,
            "mode": {"enum": ["enforce", "shadow"]},
            "on_exceed": _TEXT,
            "alert_at": {"type": "array", "items": {"type": "number"}},
            "resets_at": {"type": ["string", "null"], "format": "date-time"},
            "scopes": {"type": "array", "items": _ref("Scope"), "description": "The fullest first"},
        },
        optional=["alert_at"],
    ),
    "Scope": _object(
        {
            "scope": _TEXT | {"description": "What a grant names"},
            "fields": {"type": "object", "additionalProperties": _TEXT},
            "settled": _AMOUNT,
            "reserved": _AMOUNT,
            "granted": _AMOUNT,
            "remaining": _AMOUNT,
            "used": {"type": "number", "description": "The settled share of the limit"},
        },
        description="One count of a budget",
    ),
    "Grant": _object({"id": _TEXT, "budget": _TEXT, "scope": _TEXT, "amount": _AMOUNT, "expires_at": _TIME}),
    "NewGrant": {
        "type": "object",
        "additionalProperties": False,
        "required": ["budget", "scope", "amount"],
        "properties": {
            "budget": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"},
            "scope": {"type": "string", "pattern": r"^[!-~]{1,2048}$"},
            "amount": {
                "type": "string",
                "pattern": r"^(?=.*[1-9])(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$",
                "description": "More than 0, in the budget's unit",
            },
            "expires_in": {
                "type": ["number", "null"],
                "minimum": 1,
                "maximum": 366 * 86400,
                "description": "Seconds; without it, until the window ends",
            },
        },
    },
    "Exchange": _object(
        {
            "id": _TEXT,
            "request_id": _TEXT,
            "time": {"type": ["string", "number"], "description": "RFC 3339, or seconds since the epoch"},
            "status": {"type": "integer"},
            "error": _TEXT | {"description": "The refusal's code, or what ended the exchange early; else empty"},
            "outcome": {"enum": list(OUTCOMES)},
        },
        description="One exchange as the log has it: who, which model, who served, tokens, cost. Never a body",
    ),
    "Place": _object(
        {
            "cooling_down_s": {"type": "number"},
            "plain_s": {"type": "number"},
            "streamed_first_byte_s": {"type": "number"},
            "failing": {"type": "number", "minimum": 0, "maximum": 1},
        },
        optional=["cooling_down_s", "plain_s", "streamed_first_byte_s", "failing"],
        description="What tries taught about one model at its provider",
    ),
}

_ERRORS = {
    400: "A parameter or the body cannot be read",
    401: "The token is missing or wrong",
    403: "A page of another site asks",
    404: "There is none of that name",
    409: "It does not fit what is there",
    411: "The body does not say its length",
    413: "The body is longer than 64 KiB",
    414: "Path and query are longer than 8 KiB",
    415: "The content type is not application/json",
    421: "Without a token, the Host is a name of this machine's loopback",
    503: "The store does not answer",
}
_ALWAYS = (400, 401, 414, 421)


def _parameter(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": _PRINTABLE | {"minLength": 1}}


def _json(schema: Json, description: str = "As asked") -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _operation(
    id: str, summary: str, answers: Mapping[int, Json], errors: Sequence[int] = (), **more: Any
) -> dict[str, Any]:
    every = {str(status): answer for status, answer in answers.items()}
    for status in sorted({*_ALWAYS, *errors}):
        every[str(status)] = _json(_ref("Error"), _ERRORS[status])
    return {"operationId": id, "summary": summary, "responses": every, **more}


_STORE = (503,)
_CHANGE = (403, *_STORE)

_MOMENT: Json = {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}
_FIELD = f"({'|'.join(USAGE_FIELDS)}|label\\.[^,\\x00-\\x1f\\x7f]+)"
_SPECIAL: Mapping[str, Json] = {
    "status": {"type": "string", "pattern": "^[0-9]{1,3}$"},
    "outcome": {"enum": list(OUTCOMES)},
    "stream": {"enum": ["true", "false"]},
}


def _only(name: str) -> Json:
    schema = {"type": "array", "items": _SPECIAL.get(name, _PRINTABLE)}
    return _parameter(name, schema, "Only these; repeatable")


_USAGE_PARAMETERS = [
    _parameter("start", _MOMENT, "A date or RFC 3339, inclusive; default: the month's beginning, UTC"),
    _parameter("end", _MOMENT, "A date or RFC 3339, exclusive; default: the month's end"),
    _parameter("resolution", {"enum": ["hour", "day", "month", "total"]}, "The length of a row"),
    _parameter("group_by", {"type": "string", "pattern": f"^{_FIELD}(,{_FIELD}){{0,7}}$"}, "Fields, comma-separated"),
    _parameter("format", {"enum": ["json", "csv"]}, "Default: as Accept says, else json"),
    *map(_only, USAGE_FIELDS),
    {
        "name": "labels",
        "in": "query",
        "style": "form",
        "explode": True,
        "schema": {
            "type": "object",
            "propertyNames": {"pattern": r"^label\.[^,\x00-\x1f\x7f]+$"},
            "additionalProperties": _PRINTABLE,
        },
        "description": "`label.<name>=<value>`: only exchanges with this label",
    },
]

_PATHS: Mapping[str, Json] = {
    "/": {
        "get": _operation(
            "console",
            "The console",
            {200: {"description": "A page", "content": {"text/html": {"schema": _TEXT}}}},
            security=[],
        )
    },
    "/openapi.json": {
        "get": _operation("openapi", "This description", {200: _json({"type": "object"})}, security=[]),
    },
    "/usage": {
        "get": _operation(
            "usage",
            "Who spent what",
            {
                200: {
                    "description": "A row for each group and time",
                    "content": {
                        "application/json": {"schema": _ref("Usage")},
                        "text/csv": {"schema": _TEXT},
                    },
                }
            },
            _STORE,
            parameters=_USAGE_PARAMETERS,
        )
    },
    "/budgets": {"get": _operation("budgets", "All budgets and what is left", {200: _json(_list("Budget"))}, _STORE)},
    "/budgets/{name}": {
        "parameters": [_path("name")],
        "get": _operation("budget", "One budget, in a list", {200: _json(_list("Budget"))}, (404, *_STORE)),
    },
    "/grants": {
        "get": _operation("grants", "The grants that still count", {200: _json(_list("Grant"))}, _STORE),
        "post": _operation(
            "grant",
            "Give one scope room beyond its budget's limit",
            {201: _json(_ref("Grant"), "Given")},
            (404, 409, 411, 413, 415, *_CHANGE),
            requestBody={"required": True, "content": {"application/json": {"schema": _ref("NewGrant")}}},
        ),
    },
    "/grants/{id}": {
        "parameters": [_path("id")],
        "delete": _operation("revoke", "Take a grant back", {204: {"description": "Taken back"}}, (404, *_CHANGE)),
    },
    "/exchanges": {
        "get": _operation(
            "exchanges",
            "Recent exchanges, the latest first",
            {200: _json(_list("Exchange"))},
            _STORE,
            parameters=[
                _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "At most"),
                _parameter("consumer", _PRINTABLE, "Only this one's"),
                _parameter("team", _PRINTABLE, "Only this one's"),
                _parameter("model", _PRINTABLE, "Only for this model, as the client asked"),
                _parameter("status", _SPECIAL["status"], "Only with this status"),
                _parameter("error", _PRINTABLE, "Only with this code"),
                _parameter("outcome", {"enum": list(OUTCOMES)}, "refused: by the gateway; error: failed otherwise"),
            ],
        )
    },
    "/exchanges/{id}": {
        "parameters": [_path("id")],
        "get": _operation("exchange", "By its id or x-request-id", {200: _json(_ref("Exchange"))}, (404, *_STORE)),
    },
    "/providers": {
        "get": _operation(
            "providers",
            "How each model at a provider fares",
            {
                200: _json(
                    _object(
                        {
                            "object": {"const": "list"},
                            "data": {"type": "object", "additionalProperties": _ref("Place")},
                        }
                    )
                )
            },
            _STORE,
        )
    },
}


def document() -> Json:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Admin API of the AI gateway",
            "version": __version__,
            "description": "Who spent what, what is left of budgets, and recent exchanges. For operators.",
        },
        "paths": _PATHS,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }
