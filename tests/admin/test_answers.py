"""Real answers match `/openapi.json`, and their types are complete."""

from __future__ import annotations

import json
import time
from typing import get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from extproc.money.budgets import BudgetSettings
from extproc.money.ledger import Row
from extproc.money.ledger.rows import COLUMNS
from extproc.operate.admin import answers, exchanges
from extproc.operate.admin.api import OPERATIONS, document
from extproc.operate.telemetry.logs import describe
from extproc.words.chain import Skip
from extproc.words.tries import FailedTry
from tests.exchanges import write
from tests.reports.test_reports import BUDGETS, NOW, SCOPE, World
from tests.telemetry.test_metrics import ended


def known(exchange):
    """An exchange with every field that the log can have."""
    found = ended(exchange, labels={"run": "\ud800 lone"})
    skipped = [Skip(found.route.targets[0], "no_key", "it has no key")]
    write(found, prompt_saved=5, denied_by="month", downgraded="week", skipped=skipped, targets=[])
    write(found, tries=[FailedTry("t", "a", 503, 9, "connect")])
    return found


@pytest.fixture(scope="module")
def real(clocks, exchange):
    """The admin API of a processor with counts, grants, a ledger, remembered exchanges, and notes on providers."""
    world = World(clocks())
    try:
        world.budgets = [*BUDGETS, BudgetSettings(name="told", unit="usd", limit=5, window="day", alert_at=[0.5])]
        world.hold("1", SCOPE, -1, 2_000_000_000, settle=1_500_000_000)
        world.hold("2", "slots", 0, 1)
        assert world.grant(amount="12.5").status_code == 201
        for streamed in (True, False):
            world.history.learn("a/m", "ok", size=10, streamed=streamed, first_byte=0.2, rest=0.1, answer=100)
        begun = exchange()
        begun.end()
        world.entries += [describe(known(exchange)) | {"time": NOW}, describe(begun) | {"time": NOW, "id": "new"}]
        rows = [
            Row(id="least", time=NOW - 10),
            Row(
                id="most",
                time=NOW - 20,
                labels={"run": "1"},
                charges={SCOPE: 5},
                cost=7,
                guardrails=["g"],
                first_token_ms=3,
                status=200,
                stream=True,
                error="e",
                tries=[FailedTry("t", "a", 503, 9, "connect")],
            ),
        ]
        for row in rows:
            world.ledger.writer.add(row)
        while world.ledger.writer.written < len(rows):
            time.sleep(0.01)
        yield world
    finally:
        world.close()


PATHS = [
    "/usage?start=2023-11-01&end=2023-12-01",
    "/usage?start=2023-11-01&end=2023-12-01&resolution=hour&group_by=consumer,outcome,label.run,label.none",
    "/usage?start=2023-01-01&end=2023-01-02",
    "/budgets",
    "/budgets/slots",
    "/grants",
    "/exchanges",
    "/exchanges?outcome=refused",
    "/exchanges/least",
    "/exchanges/most",
    "/exchanges/new",
    "/providers",
    "/tools",
    "/tools?definitions=true",
]


def described(path):
    """The operation of a path, and a validator of its answers."""
    route = path.partition("?")[0]
    parts = route.split("/")
    operation = next(
        one
        for one in OPERATIONS
        if one.method == "GET" and len(one.path.split("/")) == len(parts) and one.path.split("/")[1] == parts[1]
    )
    told = document()
    schema = told["paths"][operation.path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    return Draft202012Validator(schema | {"components": told["components"]})


@pytest.mark.parametrize("path", PATHS)
def test_a_real_answer_matches_its_description_and_is_complete(real, path):
    answer = real.http.get(path)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    described(path).validate(body)
    where, _, query = path[1:].partition("?")
    kind, _, name = where.partition("/")
    everything = real.everything
    told = {
        "usage": lambda: everything.usage([tuple(part.split("=")) for part in query.split("&")]),
        "budgets": lambda: everything.budgets(name or None),
        "grants": lambda: {"object": "list", "data": everything.grants()},
        "exchanges": lambda: (
            everything.exchange(name)
            if name
            else {
                "object": "list",
                "data": everything.exchanges([tuple(part.split("=")) for part in query.split("&") if part]),
            }
        ),
        "tools": lambda: {"object": "list", "data": everything.tools(definitions=bool(query))},
        "providers": lambda: {"object": "list", "data": everything.providers()},
    }[kind]()
    assert body == json.loads(json.dumps(told))


def test_units_windows_outcomes_and_filters_are_described(real):
    schemas = document()["components"]["schemas"]
    assert "concurrency" in schemas["Budget"]["properties"]["unit"]["enum"]
    assert {"type": "null"} in schemas["Budget"]["properties"]["window"]["anyOf"]
    assert set(schemas["Exchange"]["properties"]["outcome"]["enum"]) == {"ok", "refused", "error"}
    names = {parameter["name"] for parameter in document()["paths"]["/usage"]["get"]["parameters"]}
    assert "outcome" in names
    slots = next(entry for entry in real.http.get("/budgets").json()["data"] if entry["name"] == "slots")
    assert (slots["unit"], slots["window"]) == ("concurrency", None)
    assert real.http.get("/exchanges/most").json()["outcome"] == "ok"


def test_an_exchange_has_every_field_of_the_log_and_the_ledger(exchange):
    fields = set(exchanges.Exchange.__struct_fields__)
    assert set(describe(known(exchange))) <= fields
    money = {"cost", "saved", "prompt_saved", "prompt_extra"}
    assert {*COLUMNS, *(f"{name}_usd" for name in money)} - money <= fields


def test_units_and_windows_are_those_of_the_settings():
    fields = BudgetSettings.model_fields
    assert get_args(fields["unit"].annotation) == get_args(answers.Unit)
    assert {kind for one in get_args(fields["window"].annotation) for kind in get_args(one)} == set(
        get_args(answers.Window)
    )


def test_an_answer_of_another_shape_is_an_internal_error_without_details(real, monkeypatch):
    monkeypatch.setattr(real.everything, "providers", lambda: {"a/m": {"failing": "sk-canary"}})
    http = TestClient(real.http.app, base_url="http://localhost", raise_server_exceptions=False)
    answer = http.get("/providers")
    assert (answer.status_code, "canary" in answer.text) == (500, False)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"object": "list", "data": {"a/m": {"failing": 2}}}, answers.Providers)
