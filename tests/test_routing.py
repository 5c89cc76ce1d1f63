import pytest

from extproc.dialects import Ask, by_path
from extproc.errors import Refusal
from extproc.exchange import Exchange, Request, Target
from extproc.routing import Catalog, Route

TEXT = """
providers:
  a: {kind: mock}
  b: {kind: mock, base_url: 'http://127.0.0.1:8090/v1'}
  off: {kind: mock, disabled: true}
  keyless: {kind: openai, api_key: env:UNSET_FOR_SURE}
  own: {kind: openai, base_url: 'http://vllm:8000/v1'}
models:
  m: {provider: a, max_output_tokens: 100, context: 1000}
  renamed: {provider: b, model: vendor/other}
  stopped: {provider: a, disabled: true}
  off: {provider: off}
  keyless: {provider: keyless}
  own: {provider: own}
  "a/*": {provider: a}
  "a/special-*": {provider: b}
  "claude-*": {provider: b}
  "fixed-*": {provider: a, model: always-this}
virtual_models:
  v: {targets: [{model: m}, {model: renamed}, {model: a/x}]}
  half: {targets: [{model: keyless}, {model: stopped}, {model: m}]}
  dead: {targets: [{model: off}, {model: stopped}]}
"""


@pytest.fixture(scope="module")
def catalog(settings):
    found = settings(TEXT)
    return Catalog(found.providers, found.models, found.virtual_models)


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("m", "a", "m"),
        ("renamed", "b", "vendor/other"),
        ("a/gpt-4o", "a", "gpt-4o"),
        ("a/vendor/model:1", "a", "vendor/model:1"),
        ("a/special-1", "b", "a/special-1"),
        ("claude-sonnet", "b", "claude-sonnet"),
        ("fixed-1", "a", "always-this"),
    ],
)
def test_a_name_leads_to_a_model_at_a_provider(catalog, name, provider, model):
    [target] = catalog.resolve(name).targets
    assert (target.name, target.provider, target.model) == (name, provider, model)
    assert catalog.resolve(name).retry.attempts == 1


@pytest.mark.parametrize(
    "name", ["", "x", "M", "a/*", "*", "claude-*", "a/x y", "a/é", "a/x\r\ny", "a/" + "x" * 300, "a", "a/"]
)
def test_other_names_lead_nowhere(catalog, name):
    assert catalog.resolve(name) is None


def test_what_the_settings_say_of_a_model_is_in_its_target(catalog):
    assert catalog.target("m") == Target("m", "a", "m", 100, 1000)


def test_a_virtual_model_is_its_targets_in_order(catalog):
    chain = catalog.resolve("v")
    assert [(target.name, target.model) for target in chain.targets] == [
        ("m", "m"),
        ("renamed", "vendor/other"),
        ("a/x", "x"),
    ]
    assert chain.retry.attempts == 3


def test_names_and_wildcards_are_listed(catalog):
    assert list(catalog.names()) == ["m", "renamed", "stopped", "off", "keyless", "own", "v", "half", "dead"]
    assert dict(catalog.wildcards()) == {"a/special-*": "b", "claude-*": "b", "fixed-*": "a", "a/*": "a"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("m", None),
        ("own", None),
        ("stopped", "it is disabled"),
        ("off", "it is disabled"),
        ("keyless", "its key env:UNSET_FOR_SURE is not set"),
    ],
)
def test_why_no_request_may_go_somewhere(catalog, name, reason):
    assert catalog.unavailable(catalog.target(name)) == reason


# --- Route


def route(catalog, model, path="/v1/chat/completions"):
    exchange = Exchange("id", Request("POST", path, {}))
    exchange.dialect = by_path()[path]
    exchange.ask = Ask(model)
    Route(catalog)(exchange)
    return [target.name for target in exchange.targets]


@pytest.mark.parametrize(
    ("model", "targets"), [("m", ["m"]), ("v", ["m", "renamed", "a/x"]), ("half", ["m"]), ("claude-1", ["claude-1"])]
)
def test_targets_are_those_that_can_serve(catalog, model, targets):
    assert route(catalog, model) == targets
    assert route(catalog, model, "/v1/embeddings") == targets


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("nobody", 404, "model_not_found"),
        ("../../etc/passwd", 404, "model_not_found"),
        ("a\r\nx: y", 400, "invalid_request"),
        ("a b", 400, "invalid_request"),
        ("ｍ", 400, "invalid_request"),
        ("m" * 257, 400, "invalid_request"),
        ("dead", 503, "no_provider_available"),
        ("keyless", 503, "no_provider_available"),
    ],
)
def test_names_that_lead_to_no_answer(catalog, model, status, code):
    with pytest.raises(Refusal) as refused:
        route(catalog, model)
    assert (refused.value.kind.status, refused.value.kind.code) == (status, code)
    assert len(refused.value.message) < 500


def test_an_api_that_no_provider_of_the_model_serves(catalog, monkeypatch):
    monkeypatch.setattr(Catalog, "speaks", lambda _self, _target, dialect: dialect == "openai_embeddings")
    with pytest.raises(Refusal) as refused:
        route(catalog, "m")
    assert refused.value.kind.code == "unsupported_by_targets"
    assert route(catalog, "m", "/v1/embeddings") == ["m"]
