"""OpenAPI 3.1 of a table of operations. Their parameters, bodies and answers are described by their msgspec types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from extproc import __version__
from extproc.money.ledger.query import FIELDS, Resolution
from extproc.operate.admin import answers
from extproc.operate.admin.guard import MAX_TARGET
from extproc.words.exchange import Outcome

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"
_ERRORS = {
    400: "A parameter or the body cannot be read",
    401: "The token is missing or wrong",
    403: "The operator's role does not allow it, or a page of another site asks",
    404: "Nothing has that name",
    409: "It conflicts with an existing entry",
    411: "The body has no Content-Length",
    413: "The body is longer than 64 KiB",
    414: f"Path and query are longer than {MAX_TARGET >> 10} KiB",
    415: "The content type is not application/json",
    421: "Without a token, the Host is a name of this machine's loopback",
    429: "Too many at once",
    503: "The store, or another service, does not answer",
}
_ALWAYS = (400, 401, 403, 414, 421)


@dataclass(slots=True, frozen=True)
class Operation:
    """One method of one path. `answer`, `query` and `body` are types of `answers`; `media` is another content type and
    its answer. `open` operations need no token.
    """

    method: str
    path: str
    id: str
    summary: str
    handler: Callable[..., Any]
    answer: type | None = None
    status: int = 200
    media: str = ""
    errors: Sequence[int] = ()
    """Further errors, beyond those of paths with a name, of bodies and of all operations."""
    query: type | None = None
    labels: bool = False
    """True for a query that may also have `label.<name>=<value>`."""
    parameters: Sequence[Json] = ()
    """Descriptions of parameters that the handler reads itself."""
    body: type | None = None
    open: bool = False
    role: str = "viewer"
    """The lowest role that may call the operation."""
    audited: bool = False
    """True for a read that is written into the audit trail, as every change is."""

    @property
    def failures(self) -> Sequence[int]:
        """The statuses of the operation's errors."""
        found = {*_ALWAYS, *self.errors}
        found |= set() if self.open else {503}
        found |= {404} if "{" in self.path else set()
        found |= set() if self.body is None else {411, 413, 415}
        return sorted(found)


def document(operations: Sequence[Operation]) -> Json:
    """The whole OpenAPI description."""
    types = {kind for operation in operations for kind in (operation.answer, operation.body) if kind is not None}
    schemas = _schemas([answers.Error, *sorted(types, key=lambda kind: kind.__name__)])
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, _path_parameters(operation.path))[operation.method.lower()] = _described(
            operation
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Admin API of the AI gateway",
            "version": __version__,
            "description": "Spending, budgets, grants and recent exchanges. For operators.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _schemas(types: Sequence[type]) -> Mapping[str, Json]:
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    return components


def _ref(kind: type) -> Json:
    return {"$ref": _REF.format(name=kind.__name__)}


def _described(operation: Operation) -> Json:
    answered: Json = {"description": operation.summary}
    content: Json = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": _ref(operation.answer)}
    if operation.media:
        content[operation.media] = {"schema": {"type": "object" if operation.media.endswith("json") else "string"}}
    responses = {str(operation.status): answered | ({"content": content} if content else {})}
    for status in operation.failures:
        failed = {"application/json": {"schema": _ref(answers.Error)}}
        responses[str(status)] = {"description": _ERRORS[status], "content": failed}
    told: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "responses": responses,
    }
    query = [] if operation.query is None else _parameters(operation.query)
    if parameters := [*query, *([_labels()] if operation.labels else []), *operation.parameters]:
        told["parameters"] = parameters
    if operation.body is not None:
        content = {"application/json": {"schema": _ref(operation.body)}}
        told["requestBody"] = {"required": True, "content": content}
    if operation.open:
        told["security"] = []
    return told


def _path_parameters(path: str) -> Json:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    schema = _schema(answers.Printable) | {"minLength": 1}
    found = [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]
    return {"parameters": found} if found else {}


# --- parameters of queries


def _parameters(kind: type) -> Sequence[Json]:
    """The parameters of a struct, one for each field."""
    [schema] = _schemas([kind]).values()
    return [
        _parameter(name, {key: value for key, value in told.items() if key != "description"}, told["description"])
        | ({"required": True} if name in schema.get("required", ()) else {})
        for name, told in schema["properties"].items()
    ]


def _labels() -> Json:
    """`label.<name>=<value>`, for any label."""
    labels = {
        "type": "object",
        "propertyNames": {"pattern": r"^label\.[^,\x00-\x1f\x7f]+$"},
        "additionalProperties": _schema(answers.Printable),
    }
    told = "`label.<name>=<value>`: only exchanges with this label"
    return _parameter("labels", labels, told) | {"style": "form", "explode": True}


def usage_parameters(*, format: bool = True) -> Sequence[Json]:
    """The parameters of a usage report (`Query.parse`): its time, its fields and labels."""
    moment = {"type": "string", **answers.MOMENT}
    media = _parameter("format", {"enum": ["json", "csv"]}, "Default: by the header Accept, else json")
    field = f"({'|'.join(FIELDS)}|label\\.[^,\\x00-\\x1f\\x7f]+)"
    return [
        _parameter("start", moment, "A date or RFC 3339, inclusive; default: the month's beginning, UTC"),
        _parameter("end", moment, "A date or RFC 3339, exclusive; default: the month's end"),
        _parameter("resolution", _schema(Resolution), "The length of a row"),
        _parameter("group_by", {"type": "string", "pattern": f"^{field}(,{field}){{0,7}}$"}, "Fields, comma-separated"),
        *([media] if format else []),
        *(_parameter(name, _values_of(name), "Only these; repeatable") for name in FIELDS),
        _labels(),
    ]


def _values_of(field: str) -> Json:
    kinds = {"status": answers.Status, "stream": answers.Truth, "outcome": Outcome}
    return {"type": "array", "items": _schema(kinds.get(field, answers.Printable))}


def _schema(kind: Any) -> Json:
    return msgspec.json.schema(kind)


def _parameter(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": description}
