"""The lints of `extproc check`, each with settings that it reports and settings that it does not report."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from extproc.routing.strategies import strategies
from extproc.settings.checks import doubts
from extproc.settings.config import lint, parse
from extproc.settings.document import ConfigError
from tests.samples import examples

ALL = "all targets are at provider 'a': when it is down, no target is left"
KNOWING = """
models:
  m: {provider: a}
  n: {provider: b}
  o: {provider: a}
  big: {provider: a, context: 200000}
  small: {provider: b, context: 8000}
  tools: {provider: a, supports: [tools]}
  plain: {provider: b, supports: []}
  priced: {provider: a, price: {input: 1, output: 2}}
  dear: {provider: b, price: {input: 3, output: 4}}
  off: {provider: b, disabled: true}
  "a/*": {provider: a}
"""


def found(settings, text):
    return [(".".join(map(str, where)), message) for where, message in doubts(settings(text))]


def virtual(targets, **rest):
    return {"targets": [target if isinstance(target, dict) else {"model": target} for target in targets]} | rest


def about(settings, **virtual_models):
    """The warnings about the virtual models in `KNOWING`."""
    return found(settings, f"{KNOWING}\nvirtual_models: {json.dumps(virtual_models)}")


def weights(*numbers):
    return [{"model": "mn"[index % 2], "weight": number} for index, number in enumerate(numbers)]


NOTHING_THERE = "does not support {}: requests that need it skip this target"
EVERYTHING = "tools, images, files, audio, json_schema, reasoning"


@pytest.mark.parametrize(
    ("virtual_models", "expected"),
    [
        # abilities
        ({"v": virtual(["tools", "plain"])}, [("v.targets.1", NOTHING_THERE.format("tools"))]),
        ({"v": virtual(["plain", "m"])}, [("v.targets.0", NOTHING_THERE.format(EVERYTHING))]),
        ({"v": virtual(["m", "n"])}, []),
        ({"v": virtual(["plain", {"model": "tools", "disabled": True}])}, []),
        (
            {"v": virtual(["m", {"model": "plain", "remove": ["tools", "response_format"]}])},
            [("v.targets.1", NOTHING_THERE.format("images, files, audio, reasoning"))],
        ),
        (  # differences inside a nested virtual model are reported once, where it is defined
            {"v": virtual(["inner", "n"]), "inner": virtual(["tools", "n"])},
            [("inner.targets.0", NOTHING_THERE.format("images, files, audio, json_schema, reasoning"))],
        ),
        (
            {"v": virtual(["inner", "m"]), "inner": virtual(["plain"])},
            [("v.targets.0", NOTHING_THERE.format(EVERYTHING))],
        ),
        # contexts
        (
            {"v": virtual(["big", "small"])},
            [("v.targets.1", "has a context of 8000 tokens, another target 200000: longer requests skip this target")],
        ),
        ({"v": virtual(["m", "small"])}, []),
        ({"v": virtual(["inner", "small"]), "inner": virtual(["m", "big"])}, []),
        # weights
        (
            {"v": virtual(weights(60, 30), strategy="weighted")},
            [("v.targets", "the weights add up to 90, not to 100")],
        ),
        ({"v": virtual(weights(60, 40), strategy="weighted")}, []),
        ({"v": virtual(weights(100, 0), strategy="weighted")}, []),
        ({"v": virtual(["m", "n"], strategy="weighted")}, []),
        # settings of another strategy
        (
            {"v": virtual(["m", {"model": "n", "weight": 1}])},
            [("v.targets.1.weight", "has no effect with the strategy fallback: it is for weighted and load")],
        ),
        (
            {"v": virtual(["m", {"model": "n", "max_complexity": 1}], strategy="latency")},
            [("v.targets.1.max_complexity", "has no effect with the strategy latency: it is for complexity")],
        ),
        ({"v": virtual([{"model": "m", "max_complexity": 0.5}, "n"], strategy="complexity")}, []),
        # providers
        ({"v": virtual(["m", "o"])}, [("v.targets", ALL)]),
        ({"v": virtual(["m", "o"], strategy="latency")}, []),
        ({"v": virtual(["m", {"model": "n", "disabled": True}, "o"])}, [("v.targets", ALL)]),
        (
            {"v": virtual(["m", "n", "o"])},
            [("v.targets", "first and last target are at provider 'a': when it is down, both fail")],
        ),
        ({"v": virtual(["m", "n", "o"], strategy="latency")}, []),
        ({"v": virtual(["m"])}, []),
        ({"v": virtual(["m", "off"])}, []),
        ({"v": virtual(["inner", "n"]), "inner": virtual(["m", "o"])}, []),
        ({"v": virtual(["inner", "a/x"]), "inner": virtual(["m", "o"])}, [("v.targets", ALL)]),
        # attempts
        (
            {"v": virtual(["m", "n"], retry={"attempts": 1})},
            [("v.retry.attempts", "is 1, the targets need 2: the last are tried only when others are skipped")],
        ),
        (
            {"v": virtual(["m", {"model": "n", "tries": 3}])},
            [("v.retry.attempts", "is 3, the targets need 4: the last are tried only when others are skipped")],
        ),
        ({"v": virtual(["m", {"model": "n", "tries": 2}])}, []),
        ({"v": virtual(["m", "n"], strategy="latency", retry={"attempts": 1})}, []),
        ({"v": virtual([{"model": "m", "match": {"team": "x"}}, "n"], retry={"attempts": 1})}, []),
        ({"v": virtual(["inner", "m", "n"], retry={"attempts": 2}), "inner": virtual(["m"])}, []),
        # prices
        (
            {"v": virtual(["priced", "n"], strategy="cost")},
            [("v.targets.1", "the price of 'n' is unknown, so it comes last: give a `price`")],
        ),
        (
            {"v": virtual(["dear", "inner"], strategy="cost"), "inner": virtual(["m", "n"])},
            [("v.targets.1", "the price of 'm', 'n' is unknown, so it comes last: give a `price`")],
        ),
        ({"v": virtual(["priced", "dear"], strategy="cost")}, []),
        ({"v": virtual(["m", "n"], strategy="latency")}, []),
    ],
)
def test_warnings_about_virtual_models_are_given(settings, virtual_models, expected):
    assert about(settings, **virtual_models) == [(f"virtual_models.{where}", message) for where, message in expected]


GRANTS = """
auth: {required: true}
virtual_models: {v: {targets: [{model: m}, {model: n}]}}
teams: {red: {models: ["*"]}, none: {models: []}}
"""
KEY, OTHER = "keys: [{env: A_KEY}]", "keys: [{env: B_KEY}]"


@pytest.mark.parametrize(
    ("consumers", "expected"),
    [
        (f"{{name: a, {KEY}}}", []),
        (f"{{name: a, {KEY}, team: red}}", []),
        (f"{{name: a, {KEY}, models: [m, v]}}, {{name: b, {OTHER}, models: [n]}}", []),
        (f"{{name: a, {KEY}, models: [m, v]}}", [("models.n", "no consumer may use this model")]),
        (f"{{name: a, {KEY}, models: [m, n]}}", [("virtual_models.v", "no consumer may use this model")]),
        (
            f"{{name: a, {KEY}, models: [v]}}, {{name: b, {OTHER}, models: [m, n]}}",
            [("virtual_models.v", "the consumers that may use this model may use none of its targets")],
        ),
        (
            f"{{name: a, {KEY}, team: none}}",
            [(name, "no consumer may use this model") for name in ("models.m", "models.n", "virtual_models.v")],
        ),
        (  # no credential leads to b
            f"{{name: a, {KEY}, models: [m, v]}}, {{name: b}}",
            [
                ("consumers.1", "has no keys, subjects or certificates: no request can come from it"),
                ("models.n", "no consumer may use this model"),
            ],
        ),
    ],
)
def test_names_without_a_grant_get_a_warning(settings, monkeypatch, consumers, expected):
    monkeypatch.setenv("A_KEY", "sk-gw-x")
    monkeypatch.setenv("B_KEY", "sk-gw-y")
    text = f"{GRANTS}consumers: [{consumers}]"
    assert found(settings, text) == expected
    others = [doubt for doubt in expected if doubt[0].startswith("consumers")]
    assert found(settings, text.replace("required: true", "required: false")) == others


def test_a_warning_has_its_place_in_the_file(tmp_path):
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "providers: {a: {kind: mock}}\nauth: {required: false}\nmodels: {m: {provider: a}}\n"
        "virtual_models:\n  v:\n    targets:\n      - {model: m, weight: 2}\n"
    )
    [problem] = lint(file)
    assert (problem.line, problem.column, problem.path) == (7, 20, "virtual_models.v.targets.0.weight")


# --- arbitrary settings

NAMES = ["m", "n", "v", "w", "x", "a/z"]
TARGETS = st.fixed_dictionaries(
    {"model": st.sampled_from(NAMES)},
    optional={
        "weight": st.integers(0, 100),
        "max_complexity": st.floats(0, 1),
        "tries": st.integers(1, 5),
        "disabled": st.booleans(),
        "match": st.just({"label.a": "b*"}),
        "override": st.just({"temperature": 0}),
        "remove": st.just(["tools"]),
    },
)
VIRTUALS = st.fixed_dictionaries(
    {"targets": st.lists(TARGETS, min_size=1, max_size=4), "strategy": st.sampled_from(sorted(strategies()))},
    optional={"retry": st.fixed_dictionaries({"attempts": st.integers(1, 16)})},
)
MODELS = st.fixed_dictionaries(
    {"provider": st.sampled_from("ab")},
    optional={
        "context": st.integers(1, 10**6),
        "supports": st.lists(st.sampled_from(["tools", "images"])),
        "price": st.just({"input": 0, "output": 1}),
        "disabled": st.booleans(),
    },
)
CONSUMERS = st.fixed_dictionaries(
    {"name": st.sampled_from(["c", "d"])},
    optional={
        "team": st.just("t"),
        "keys": st.just([{"env": "UNSET_FOR_SURE"}]),
        "models": st.lists(st.sampled_from(["*", *NAMES]), max_size=3),
    },
)


@given(
    st.dictionaries(st.sampled_from(["v", "w", "x"]), VIRTUALS),
    MODELS,
    MODELS,
    st.lists(CONSUMERS, max_size=2, unique_by=lambda consumer: consumer["name"]),
    st.booleans(),
)
@hypothesis_settings(max_examples=examples(200))
def test_lints_never_raise(virtual_models, one, other, consumers, off):
    tree = {
        "providers": {"a": {"kind": "mock", "disabled": off}, "b": {"kind": "openai"}},
        "models": {"m": one, "n": other, "a/*": {"provider": "a"}},
        "virtual_models": virtual_models,
        "teams": {"t": {"models": ["m"]}},
        "consumers": consumers,
    }
    try:
        settings = parse(json.dumps(tree))
    except ConfigError:
        return
    for where, message in doubts(settings):
        assert where[0] in tree
        assert message


@pytest.mark.parametrize(
    ("entry", "reported"),
    [("action: block", False), ("action: block, failure: open", True), ("action: audit, failure: open", False)],
)
def test_a_guardrail_that_fails_open_is_reported(settings, entry, reported):
    text = f"guardrails: [{{name: g, kind: regex, patterns: {{a: b}}, {entry}}}]"
    expected = [("guardrails.0.failure", "text passes unchecked when the guardrail fails")]
    assert found(settings, text) == (expected if reported else [])


def test_a_model_that_reasons_at_unknown_levels_is_reported(settings):
    yaml = """
providers: {p: {kind: perplexity, api_key: env:PATH}, a: {kind: anthropic, api_key: env:PATH}}
models:
  sonar-reasoning-pro: {provider: p}
  told: {provider: p, model: sonar-reasoning-pro, supports: [tools]}
  sonar: {provider: p}
  claude: {provider: a, model: claude-reasoning}
auth: {required: false}
"""
    doubts = [(where, message) for where, message in found(settings, yaml) if "levels of thinking" in message]
    assert [where for where, _ in doubts] == ["models.sonar-reasoning-pro"]


@pytest.mark.parametrize(("more", "reported"), [("", True), (", search: 0.01, session: 0", False)])
def test_calls_whose_price_only_the_operator_knows_are_reported(settings, more, reported):
    yaml = f"""
providers: {{z: {{kind: groq, api_key: env:PATH}}}}
models: {{m: {{provider: z, model: openai/gpt-oss-120b, price: {{input: 1, output: 1{more}}}}}}}
budgets: [{{name: b, unit: usd, limit: 1, window: day}}]
auth: {{required: false}}
"""
    text = "{} of 'm' count as free, as only you know their price: give `{}` in its `price`"
    missing = [("budgets.0", text.format(*each)) for each in (("searches", "search"), ("sessions", "session"))]
    assert sorted(found(settings, yaml)) == (missing if reported else [])
