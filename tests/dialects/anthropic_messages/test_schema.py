import copy

import pytest

from extproc.dialects.anthropic_messages.schema import Fitter

OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
CLOSED = OBJECT | {"additionalProperties": False}

FITTED = {
    "what fits already": (CLOSED, CLOSED),
    "an object is closed": (OBJECT, CLOSED),
    "at every level": (
        {"type": "array", "items": OBJECT, "$defs": {"b": OBJECT}},
        {"type": "array", "items": CLOSED, "$defs": {"b": CLOSED}},
    ),
    "one of several": ({"oneOf": [OBJECT, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
    "limits become words": (
        {"type": "integer", "description": "Age.", "minimum": 1, "maximum": 9},
        {"type": "integer", "description": "Age. (minimum: 1, maximum: 9)"},
    ),
    "unknown formats become words": (
        {"type": "string", "format": "phone"},
        {"type": "string", "description": "(format: phone)"},
    ),
    "known formats stay": ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
    "one item is enforced": ({"type": "array", "minItems": 1}, {"type": "array", "minItems": 1}),
    "three are not": ({"type": "array", "minItems": 3}, {"type": "array", "description": "(minItems: 3)"}),
    "a property may be called anything": (
        {"properties": {"minimum": {"type": "integer"}}, "required": ["minimum"]},
        {"properties": {"minimum": {"type": "integer"}}, "required": ["minimum"], "additionalProperties": False},
    ),
    "nonsense": (
        {"properties": 1, "items": [], "anyOf": {}, "format": [], "type": ["object"], "required": 1},
        {"properties": 1, "items": [], "anyOf": {}, "type": ["object"], "required": 1}
        | {"additionalProperties": False, "description": "(format: [])"},
    ),
}


@pytest.mark.parametrize(("schema", "fitted"), FITTED.values(), ids=FITTED)
def test_an_enforceable_schema_is_closed(schema, fitted):
    before = copy.deepcopy(schema)
    assert Fitter().fit(schema) == fitted
    assert schema == before


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        (OBJECT, False),
        (CLOSED, False),
        ({"type": "object"}, True),
        ({"type": "object", "additionalProperties": {"type": "string"}}, True),
        (OBJECT | {"additionalProperties": True}, True),
        ({"type": "array", "items": {"type": "object"}}, True),
    ],
)
def test_closing_an_object_excludes_other_properties(schema, closed):
    fitter = Fitter()
    fitter.fit(schema)
    assert fitter.closed == closed


def test_the_limits_of_schemas_are_counted():
    fitter = Fitter()
    fitter.fit({"properties": {"a": {"type": ["string", "null"]}, "b": {"anyOf": []}}, "required": ["a"]})
    assert (fitter.optional, fitter.unions, fitter.too_much) == (1, 2, False)
    for _ in range(24):
        fitter.fit({"properties": {"a": {}}})
    assert fitter.too_much
