import pytest

from extproc.dialects import client_apis
from extproc.routing.catalog import Catalog, Route
from extproc.upstream.prices import price
from extproc.words.chain import Branch
from extproc.words.dialect import Ask
from extproc.words.errors import Refusal
from extproc.words.exchange import RequestHead, Target
from tests.exchanges import new_exchange

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
  again: {provider: b, model: vendor/other}
  stopped: {provider: a, disabled: true}
  off: {provider: off}
  keyless: {provider: keyless}
  own: {provider: own}
  able: {provider: b, supports: [tools, images], price: {input: 1, output: 2.5}}
  "a/*": {provider: a}
  "a/special-*": {provider: b}
  "claude-*": {provider: b}
  "fixed-*": {provider: a, model: always-this}
virtual_models:
  v: {targets: [{model: m}, {model: renamed}, {model: a/x}]}
  dead: {targets: [{model: off}, {model: stopped}]}
  by-place: {targets: [{model: b/vendor/other}, {model: a/m}]}
  outer: {targets: [{model: v}, {model: own}], retry: {attempts: 7}}
"""


@pytest.fixture(scope="module")
def catalog(settings):
    found = settings(TEXT)
    return Catalog(found.providers, found.models, found.virtual_models)


def chain(settings, text, name="v"):
    """The chain of a virtual model of `text`."""
    found = settings(text)
    return Catalog(found.providers, found.models, found.virtual_models).resolve(name)


# --- references


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
def test_a_name_resolves_to_a_model_at_a_provider(catalog, name, provider, model):
    found = catalog.resolve(name)
    [target] = found.targets
    assert (target.name, target.provider, target.model) == (name, provider, model)
    assert (found.name, found.retry.attempts) == (name, 1)


@pytest.mark.parametrize(
    "name",
    [
        *("", "x", "M", "a/*", "*", "claude-*", "a/x y", "a/é", "a/x\r\ny", "a/" + "x" * 300, "a", "a/", "fixed-*"),
        *("b/m", "b/renamed", "b/", "own/", "vendor/other", "b/vendor/other/x", "a/v/../m y"),
    ],
)
def test_other_names_do_not_resolve(catalog, name):
    assert catalog.resolve(name) is None


@pytest.mark.parametrize(("name", "entry"), [("b/vendor/other", "renamed"), ("own/own", "own"), ("off/off", "off")])
def test_a_provider_and_its_model_resolve_to_their_entry(catalog, name, entry):
    found = catalog.resolve(name)
    assert found.targets == catalog.resolve(entry).targets
    assert found.name == entry  # the name that grants are checked against


def test_a_wildcard_takes_precedence_over_the_model_of_an_entry(catalog):
    assert catalog.resolve("a/m").name == "a/m"
    assert [target.name for target in catalog.resolve("by-place").targets] == ["renamed", "a/m"]


def test_a_target_has_the_settings_of_its_model(catalog):
    assert catalog.target("m") == Target("m", "a", "m", 100, 1000)
    able = catalog.target("able")
    assert (able.supports, able.price) == (frozenset({"tools", "images"}), price(1, 2.5, version="settings"))


def test_the_catalogue_fills_in_missing_settings(settings):
    text = "providers: {openai: {kind: openai}}\nmodels: {gpt-4o: {provider: openai}, own: {provider: openai}}"
    known = chain(settings, text, "gpt-4o").targets[0]
    assert known.price.input > 0
    assert known.context > 1000
    unknown = chain(settings, text, "own").targets[0]
    assert (unknown.price, unknown.context, unknown.supports) == (None, None, None)


def test_the_deployment_of_a_target_is_the_model_at_its_provider(catalog):
    assert catalog.target("renamed").deployment == catalog.target("again").deployment == "b/vendor/other"


# --- virtual models


def test_a_virtual_model_is_its_targets_in_order(catalog):
    found = catalog.resolve("v")
    assert [(target.name, target.model) for target in found.targets] == [
        ("m", "m"),
        ("renamed", "vendor/other"),
        ("a/x", "x"),
    ]
    assert (found.name, found.retry.attempts) == ("v", 3)


def test_nested_virtual_models_are_a_tree_and_the_outermost_sets_the_retries(catalog):
    found = catalog.resolve("outer")
    assert [target.name for target in found.targets] == ["m", "renamed", "a/x", "own"]
    assert (found.name, found.retry.attempts) == ("outer", 7)
    inner, own = found.root.below
    assert isinstance(inner, Branch)
    assert [target.name for target in inner.below] == ["m", "renamed", "a/x"]
    assert own is found.targets[3]


NESTED = """
virtual_models:
  v: {targets: [
    {model: inner, override: {temperature: 0}, default: {seed: 1}, match: {team: red}},
    {model: n, tries: 3}]}
  inner: {targets: [
    {model: m, override: {temperature: 1}, match: {label.tier: gold}},
    {model: n, default: {seed: 2}, remove: [user], disabled: true}]}
"""


def test_changes_and_matches_of_outer_virtual_models_apply_to_inner_targets(settings):
    first, second, third = chain(settings, NESTED).targets
    assert set(first.changes) == {("temperature", "set", 1), ("seed", "default", 1)}  # the inner change comes later
    assert set(second.changes) == {("temperature", "set", 0), ("seed", "default", 1), ("user", "remove", None)}
    assert [name for name, _ in first.match] == ["team", "label.tier"]
    assert [(target.disabled, target.tries) for target in (first, second, third)] == [(False, 1), (True, 1), (False, 3)]
    assert third.changes == ()


def test_an_outer_virtual_model_does_not_change_the_inner_one_itself(settings):
    first, _ = chain(settings, NESTED, "inner").targets
    assert first.changes == (("temperature", "set", 1),)


def test_a_disabled_branch_disables_all_targets_below(settings):
    text = "virtual_models: {v: {targets: [{model: w, disabled: true}, {model: m}]}, w: {targets: [{model: n}]}}"
    assert [target.disabled for target in chain(settings, text).targets] == [True, False]


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ([None, None], [0.5, 1.0]),
        ([None, None, None, None], [0.25, 0.5, 0.75, 1.0]),
        ([0.2, 0.3], [0.2, 1.0]),
        ([0.1, None, 0.9], [0.1, 2 / 3, 1.0]),
    ],
)
def test_the_last_target_takes_the_hardest_requests_whatever_its_limit(settings, given, shares):
    targets = [f"{{model: m{'' if limit is None else f', max_complexity: {limit}'}}}" for limit in given]
    root = chain(settings, f"virtual_models: {{v: {{strategy: complexity, targets: [{', '.join(targets)}]}}}}").root
    assert [share.max_complexity for share in root.shares] == pytest.approx(shares)


def test_names_and_wildcards_are_listed(catalog):
    models = ["m", "renamed", "again", "stopped", "off", "keyless", "own", "able"]
    assert list(catalog.names()) == [*models, "v", "dead", "by-place", "outer"]
    assert dict(catalog.wildcards()) == {"a/special-*": "b", "claude-*": "b", "fixed-*": "a", "a/*": "a"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("m", None),
        ("own", None),
        ("stopped", ("disabled", "it is disabled")),
        ("off", ("disabled", "it is disabled")),
        ("keyless", ("no_key", "its key env:UNSET_FOR_SURE is not set")),
    ],
)
def test_an_unavailable_target_has_a_reason(catalog, name, reason):
    assert catalog.unavailable(catalog.target(name)) == reason


def test_an_attached_envoy_needs_no_key_in_the_settings(catalog):
    assert catalog.unavailable(catalog.target("keyless"), attached=True) is None
    assert catalog.unavailable(catalog.target("stopped"), attached=True) is not None


# --- Route


def route(catalog, model):
    exchange = new_exchange("id", RequestHead("POST", "/v1/chat/completions", {}))
    exchange.request.ask = Ask(model)
    Route(catalog)(exchange)
    assert exchange.route.targets == exchange.route.chain.targets
    return [target.name for target in exchange.route.targets]


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        ("m", ["m"]),
        ("v", ["m", "renamed", "a/x"]),
        ("claude-1", ["claude-1"]),
        ("b/vendor/other", ["renamed"]),
        ("dead", ["off", "stopped"]),  # Select states the reason
    ],
)
def test_a_request_may_go_to_every_target_of_its_model(catalog, model, targets):
    assert route(catalog, model) == targets


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("nobody", 404, "model_not_found"),
        ("../../etc/passwd", 404, "model_not_found"),
        ("a\r\nx: y", 400, "invalid_request"),
        ("a b", 400, "invalid_request"),
        ("ｍ", 400, "invalid_request"),
        ("m" * 257, 400, "invalid_request"),
    ],
)
def test_unknown_and_invalid_names_are_refused(catalog, model, status, code):
    with pytest.raises(Refusal) as refused:
        route(catalog, model)
    assert (refused.value.kind.status, refused.value.kind.code, refused.value.param) == (status, code, "model")
    assert len(refused.value.message) < 500


@pytest.mark.parametrize(
    ("model", "client", "there"),
    [
        ("{provider: o, model: gpt-5.4}", "anthropic_messages", "openai_responses"),
        ("{provider: o, model: o3}", "anthropic_messages", "openai_responses"),
        ("{provider: o, model: gpt-4o}", "anthropic_messages", "openai_chat"),
        ("{provider: o, model: gpt-5.4}", "openai_chat", "openai_chat"),
        ("{provider: o, model: gpt-5.4}", "openai_responses", "openai_responses"),
        ("{provider: o, model: gpt-5.4, api: openai_chat}", "anthropic_messages", "openai_chat"),
        ("{provider: o, model: gpt-5.4, api: openai_chat}", "openai_responses", "openai_chat"),
        ("{provider: o, model: gpt-4o, api: openai_responses}", "anthropic_messages", "openai_responses"),
        ("{provider: o, model: gpt-4o, api: openai_responses}", "openai_chat", "openai_responses"),
        ("{provider: o, model: gpt-4o, api: openai_responses}", "openai_embeddings", "openai_embeddings"),
    ],
)
def test_the_api_in_which_a_request_reaches_a_model(settings, model, client, there):
    """OpenAI's models that reason are asked for responses: chat completions refuse their tools."""
    found = settings(f"providers: {{o: {{kind: openai, base_url: 'http://o/v1'}}}}\nmodels: {{m: {model}}}")
    catalog = Catalog(found.providers, found.models, found.virtual_models)
    assert catalog.api(catalog.target("m"), client_apis()[client]) == there


@pytest.mark.parametrize(
    ("provider", "model", "seconds"),
    [("", "", 600), ("timeout: 90s", "", 90), ("", "timeout: 20s", 20), ("timeout: 90s", "timeout: 20m", 90)],
)
def test_how_long_an_answer_of_a_model_may_take_to_begin(settings, provider, model, seconds):
    found = settings(f"providers: {{o: {{kind: mock, {provider}}}}}\nmodels: {{m: {{provider: o, {model}}}}}")
    assert Catalog(found.providers, found.models, found.virtual_models).target("m").timeout == seconds
