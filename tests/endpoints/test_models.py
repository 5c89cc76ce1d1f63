import json

import pytest
from anthropic.pagination import SyncPage
from anthropic.types import ModelInfo

from extproc.dialects import speaking
from extproc.exchange.endpoints.models import Models
from extproc.routing.catalog import Catalog
from extproc.upstream.prices import known_models
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead
from tests.exchanges import new_exchange

TEXT = """
providers:
  a: {kind: mock}
  off: {kind: mock, disabled: true}
  openai: {kind: openai, api_key: env:TEST_OPENAI_KEY}
models:
  m: {provider: a, context: 1000}
  a/slash: {provider: a}
  stopped: {provider: a, disabled: true}
  off: {provider: off}
  gpt-4o: {provider: openai}
  "openai/*": {provider: openai}
  "mine/*": {provider: a}
virtual_models:
  v: {targets: [{model: m}, {model: off}]}
  dead: {targets: [{model: off}]}
"""


@pytest.fixture
def models(settings, monkeypatch):
    monkeypatch.setenv("TEST_OPENAI_KEY", "sk-1")
    found = settings(TEXT)
    return Models(Catalog(found.providers, found.models, found.virtual_models))


def get(models, path="/v1/models", may_use=lambda _model: True, headers=None):
    exchange = new_exchange("id", RequestHead("GET", path, headers or {}))
    exchange.request.operation = "list_models"
    exchange.request.dialect = speaking(path, headers or {})
    exchange.consumer = Consumer("alice", may_use=may_use)
    answer = models(exchange)
    assert (answer.status, answer.headers) == (200, {"content-type": "application/json"})
    return json.loads(answer.body)


def ids(models, **more):
    found = get(models, **more)
    assert found["object"] == "list"
    return [model["id"] for model in found["data"]]


def test_other_operations_are_left_alone(models):
    exchange = new_exchange("id", RequestHead("POST", "/v1/chat/completions", {}))
    exchange.request.operation = "chat"
    assert models(exchange) is None


def test_the_list_has_the_models_that_can_be_served(models):
    named = [name for name in ids(models) if not name.startswith("openai/")]
    assert named == ["m", "a/slash", "gpt-4o", "v"]


def test_the_list_has_the_known_models_of_a_wildcard(models):
    assert {f"openai/{model}" for model in known_models("openai")} <= set(ids(models))
    assert len(known_models("openai")) > 10


def test_a_provider_without_its_key_is_not_listed(settings, monkeypatch):
    monkeypatch.delenv("TEST_OPENAI_KEY", raising=False)
    found = settings(TEXT)
    assert ids(Models(Catalog(found.providers, found.models, found.virtual_models))) == ["m", "a/slash", "v"]


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        (set(), []),
        ({"m"}, ["m"]),
        ({"v"}, []),
        ({"v", "m"}, ["m", "v"]),
        ({"v", "off"}, []),
        ({"openai/gpt-4o"}, ["openai/gpt-4o"]),
    ],
)
def test_the_list_has_only_granted_models(models, granted, expected):
    assert ids(models, may_use=granted.__contains__) == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("m", "m"),
        ("m?x=1", "m"),
        ("a/slash", "a/slash"),
        ("a%2Fslash", "a/slash"),
        ("a%2fslash", "a/slash"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("openai%2Fgpt-4o", "openai/gpt-4o"),
        ("mine/anything", "mine/anything"),
        ("v", "v"),
    ],
)
def test_one_model_is_described(models, path, name):
    found = get(models, f"/v1/models/{path}")
    assert (found["id"], found["object"], type(found["created"])) == (name, "model", int)


@pytest.mark.parametrize(
    "name", ["nobody", "stopped", "off", "dead", "mine/*", "mine/é", "mine/a%20b", "x" * 100_000, "%FF"]
)
def test_a_model_that_is_not_listed_is_a_404(models, name):
    with pytest.raises(Refusal) as refused:
        get(models, f"/v1/models/{name}")
    assert refused.value.kind.code == "model_not_found"
    assert len(refused.value.message) < 500


def test_a_model_without_a_grant_looks_like_an_unknown_one(models):
    for name in ("m", "nobody"):
        with pytest.raises(Refusal) as refused:
            get(models, f"/v1/models/{name}", may_use=lambda _model: False)
        assert refused.value.message == f"There is no model {name!r}: GET /v1/models lists the models."


def test_known_properties_of_a_model_are_listed(models):
    own, known, virtual = (get(models, f"/v1/models/{name}") for name in ("m", "gpt-4o", "v"))
    assert (own["owned_by"], own["context_length"]) == ("mock", 1000)
    assert "pricing" not in own
    assert (known["owned_by"], known["context_length"]) == ("openai", 128_000)
    assert known["pricing"]["output"] > known["pricing"]["input"] > 0
    assert virtual["owned_by"] == "gateway"


def test_clients_of_anthropic_get_its_shape(models):
    asked = {"anthropic-version": "2023-06-01"}
    found = SyncPage[ModelInfo].model_validate(get(models, headers=asked))
    names = [model.id for model in found.data if not model.id.startswith("openai/")]
    assert names == ["m", "a/slash", "gpt-4o", "v"]
    assert (found.has_more, found.first_id) == (False, "m")
    one = ModelInfo.model_validate(get(models, "/v1/models/m", headers=asked))
    assert (one.id, one.display_name, one.type, one.max_input_tokens) == ("m", "m", "model", 1000)


def test_an_empty_list_has_no_first_model(models):
    found = get(models, may_use=lambda _model: False, headers={"anthropic-version": "2023-06-01"})
    assert found == {"data": [], "has_more": False, "first_id": None, "last_id": None}
