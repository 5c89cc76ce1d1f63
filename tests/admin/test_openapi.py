"""The OpenAPI description is correct: schemathesis checks the API against it, and both have the same routes."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.checks import unsupported_method

from extproc.money.ledger.query import FIELDS
from extproc.operate.admin.api import ROUTES, admin_app, document
from tests.admin.conftest import NOW
from tests.admin.fakes import FakeDesk, FakeSources, some
from tests.samples import examples

SCHEMA = schemathesis.openapi.from_dict(document())
APP = admin_app(FakeSources(some(NOW, 30), NOW), None, FakeDesk())
SCHEMA.app = APP


def test_every_route_is_described_and_no_other():
    routes = {(route.path, method) for route in ROUTES for method in route.methods - {"HEAD"}}
    described = {
        (path, method.upper())
        for path, item in document()["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert routes == described


def test_every_schema_is_valid_and_every_reference_resolves():
    schemas = document()["components"]["schemas"]
    used = set()

    def walk(value):
        if isinstance(value, dict):
            if "$ref" in value:
                used.add(value["$ref"].removeprefix("#/components/schemas/"))
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)

    walk(document())
    assert used == set(schemas)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("field", FIELDS)
async def test_every_field_can_group_and_filter(admin, field):
    assert (
        await admin.get(
            "/usage",
            params={"group_by": field, field: {"status": "200", "stream": "true", "outcome": "ok"}.get(field, "x")},
        )
    ).status_code == 200


@SCHEMA.parametrize()
@settings(
    max_examples=examples(25),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_api_matches_its_description(case):
    case.call_and_validate(headers={"host": "localhost"}, excluded_checks=[unsupported_method])
