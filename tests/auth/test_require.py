"""Requirements: no request reaches a target that does not meet them, by any path."""

import contextlib
import random
from dataclasses import replace
from datetime import date

import pytest

from extproc.access.auth import Authorize
from extproc.access.auth.require import RequireSettings
from extproc.dialects._models import facts
from extproc.routing.catalog import Catalog, Route
from extproc.routing.history import History
from extproc.routing.named import Ungranted
from extproc.routing.selection import Select
from extproc.routing.settings import ModelSettings, VirtualModelSettings
from extproc.routing.stages import Reroute
from extproc.upstream.providers import ProviderSettings
from extproc.words.errors import MODEL_NOT_ALLOWED, Refusal
from extproc.words.exchange import Consumer, Target
from extproc.words.facts import Facts
from tests.conftest import make_exchange
from tests.samples import exhaustive

REGIONS = (None, "eu-west-1", "eu-north-1", "us-east-1")
TARGET = Target("m", "p", "m", context=1000, supports=frozenset(("tools",)), facts=Facts("eu-west-1", 0.0, "mit"))
NAMES = 50  # virtual models of one configuration, each a chain


@pytest.mark.parametrize(
    ("require", "target", "why"),
    [
        ({"regions": ["eu-*"]}, TARGET, ""),
        ({"regions": ["us-*"]}, TARGET, "its region eu-west-1 is not allowed"),
        ({"regions": ["*"]}, replace(TARGET, facts=Facts()), "its region is unknown, and is not allowed"),
        ({"retention": "0s"}, TARGET, ""),
        (
            {"retention": "1d"},
            replace(TARGET, facts=Facts(retention=30 * 86400.0)),
            "its provider keeps prompts for 30d",
        ),
        ({"retention": "1d"}, replace(TARGET, facts=Facts()), "its provider keeps prompts for an unknown time"),
        ({"licences": ["mit", "apache-*"]}, TARGET, ""),
        ({"licences": ["*"]}, replace(TARGET, facts=Facts()), "its licence is unknown, and is not allowed"),
        ({"providers": ["p"]}, TARGET, ""),
        ({"providers": ["q*"]}, TARGET, "provider p is not allowed"),
        ({"supports": ["tools"]}, TARGET, ""),
        ({"supports": ["tools"]}, replace(TARGET, supports=None), "its `supports` does not state tools"),
        ({"context": 1000}, TARGET, ""),
        ({"context": 1001}, TARGET, "its context of 1000 tokens is too small"),
        ({"context": 1}, replace(TARGET, context=None), "its context of unknown tokens is too small"),
        ({"max_price": {"input": 1}}, TARGET, "its price is unknown"),
    ],
)
def test_a_fact_that_is_unknown_meets_no_requirement(require, target, why):
    assert RequireSettings(**require).unmet(target) == why


def test_a_price_above_the_highest_is_refused(settings):
    found = settings("providers: {p: {kind: mock}}\nmodels: {m: {provider: p, price: {input: 2, output: 8}}}")
    target = Catalog(found.providers, found.models, {}).target("m")
    assert RequireSettings(max_price={"input": 2, "output": 8}).unmet(target) == ""
    why = RequireSettings(max_price={"output": 7}).unmet(target)
    assert why == "its price of 8 USD per million output tokens is too high"


def drawn_require(draw):
    """A random requirement, or None."""
    kinds = {
        "regions": lambda: draw.choice((["eu-*"], ["us-*", "eu-north-1"])),
        "providers": lambda: draw.sample(["p0", "p1", "p2", "p3"], 2),
        "retention": lambda: draw.choice(("0s", "1d")),
        "licences": lambda: ["mit"],
    }
    named = [name for name in kinds if draw.random() < 0.25]
    return RequireSettings(**{name: kinds[name]() for name in named}) if named else None


def meets(require, model, models, providers):
    """The same rule, from the settings alone."""
    if require is None:
        return True
    settings = models[model]
    region = settings.region or providers[settings.provider].region
    kept = settings.retention if settings.retention is not None else providers[settings.provider].retention
    given = [pattern.partition("*") for pattern in require.regions or ()]
    return (
        (not given or any((region or "").startswith(start) and (star or region == start) for start, star, _ in given))
        and (require.providers is None or settings.provider in require.providers)
        and (require.retention is None or (kept is not None and kept <= require.retention))
        and (require.licences is None or settings.licence in require.licences)
    )


def reachable(name, virtual, models, providers):
    """The models that a request for a name may reach: those with a path on which every requirement is met."""
    if name in models:
        return {name}
    below = set().union(*(reachable(one.model, virtual, models, providers) for one in virtual[name].targets))
    return {model for model in below if meets(virtual[name].require, model, models, providers)}


def configuration(draw):
    providers = {
        f"p{n}": ProviderSettings(kind="mock", region=draw.choice(REGIONS), retention=draw.choice((None, "0s", "30d")))
        for n in range(4)
    }
    models = {
        f"m{n}": ModelSettings(
            provider=f"p{draw.randrange(4)}",
            region=draw.choice(REGIONS),
            retention=draw.choice((None, "0s", "1d")),
            licence=draw.choice((None, "mit", "other")),
        )
        for n in range(8)
    }
    virtual = {}
    for n in range(NAMES):
        names = [*models, *list(virtual)[-3:]] if n % 4 else list(models)
        virtual[f"v{n}"] = VirtualModelSettings(
            strategy=draw.choice(("fallback", "weighted", "latency", "cost", "complexity")),
            targets=[{"model": model} for model in draw.sample(names, draw.randint(1, 3))],
            require=drawn_require(draw),
            retry={"attempts": 16},
        )
    return providers, models, virtual


def check_chains(seed):
    """One random configuration: each virtual model asked by a random consumer, half of them downgraded to another."""
    draw = random.Random(seed)
    providers, models, virtual = configuration(draw)
    history = History()
    catalog = Catalog(providers, models, virtual, history)
    authorize, select = Authorize(Ungranted(catalog)), Select(catalog, history, lambda _reason: None)
    reroute = Reroute(catalog, authorize, select)
    reached = refused = 0
    for name in virtual:
        if draw.random() < 0.2:
            history.cool(f"p{draw.randrange(4)}/m{draw.randrange(8)}", 60)
        required = [one for one in (drawn_require(draw), drawn_require(draw)) if one is not None]
        sent = make_exchange({"model": name, "messages": [{"role": "user", "content": "Hi"}]})
        sent.consumer = Consumer("bound", require=tuple(required))
        allowed = {
            model
            for model in reachable(name, virtual, models, providers)
            if all(meets(one, model, models, providers) for one in required)
        }
        try:
            Route(catalog)(sent)
            authorize(sent)
            select(sent)
        except Refusal:
            assert not allowed
            refused += 1
            continue
        assert {target.name for target in sent.route.targets} <= allowed
        reached += 1
        if draw.random() < 0.5:
            to = draw.choice(list(virtual))
            both = {
                model
                for model in reachable(to, virtual, models, providers)
                if all(meets(one, model, models, providers) for one in (*required, virtual[name].require))
            }
            with contextlib.suppress(Refusal):
                reroute(sent, to)
                assert {target.name for target in sent.route.targets} <= both
    return reached, refused


@pytest.mark.parametrize("configurations", [20, pytest.param(2000, marks=exhaustive)])
def test_no_request_of_a_bound_consumer_reaches_an_unmarked_target(configurations):
    """The exhaustive run asks 100,000 chains."""
    reached, refused = map(sum, zip(*map(check_chains, range(configurations)), strict=True))
    assert reached + refused == configurations * NAMES
    assert min(reached, refused) > configurations * NAMES / 10, "both outcomes are tried"


def test_a_refusal_names_the_requirement_that_no_target_meets():
    catalog = Catalog({"p0": ProviderSettings(kind="mock")}, {"m": ModelSettings(provider="p0")}, {})
    sent = make_exchange({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    sent.consumer = Consumer("bound", require=(RequireSettings(regions=["eu-*"]),))
    Route(catalog)(sent)
    with pytest.raises(Refusal) as refused:
        Authorize()(sent)
    assert refused.value.kind is MODEL_NOT_ALLOWED
    assert "m: its region is unknown, and is not allowed" in refused.value.message


def test_a_router_may_name_further_models_only_if_they_meet_the_requirements():
    providers = {"p0": ProviderSettings(kind="openrouter", api_key="env:KEY")}
    models = {
        "here": ModelSettings(provider="p0", model="x/here", region="eu-1"),
        "there": ModelSettings(provider="p0", model="x/there", region="us-1"),
    }
    catalog = Catalog(providers, models, {})
    allowed = []
    for further in ("x/here", "x/there", "x/unknown"):
        sent = make_exchange({"model": "here", "models": [further], "messages": [{"role": "user", "content": "Hi"}]})
        sent.consumer = Consumer("bound", require=(RequireSettings(regions=["eu-*"]),))
        Route(catalog)(sent)
        with contextlib.suppress(Refusal):
            Authorize(Ungranted(catalog))(sent)
            allowed.append(further)
    assert allowed == ["x/here"]


@pytest.mark.parametrize(
    ("left", "notice"), [(61, None), (60, 60), (31, 60), (30, 30), (8, 30), (7, 7), (0, 7), (-100, 7)]
)
def test_the_end_of_a_model_is_told_60_30_and_7_days_before(left, notice):
    today = date(2026, 11, 20)
    assert Facts(retires=date.fromordinal(today.toordinal() + left)).notice(today) == notice
    assert Facts().notice(today) is None


def test_known_ends_hold_at_the_providers_own_address_alone():
    ends = {(one.kind, one.retires >= (one.deprecated or one.retires)) for one in facts().ending.models}
    assert {kind for kind, _ in ends} == {"openai", "anthropic", "gcp_gemini"}
    assert {ordered for _, ordered in ends} == {True}
    models = {
        "gpt-4o": ModelSettings(provider="p"),
        "own": ModelSettings(provider="p", model="gpt-4o", retires="2030-01-02"),
    }
    own = Catalog({"p": ProviderSettings(kind="openai", api_key="env:KEY")}, models, {})
    found = own.target("gpt-4o").facts
    assert (found.retires, found.successor) == (date(2027, 1, 14), "gpt-6.1-sol")
    assert found.headers() == {"deprecation": "@1791936000", "sunset": "Thu, 14 Jan 2027 00:00:00 GMT"}
    assert own.target("own").facts.retires == date(2030, 1, 2)
    other = ProviderSettings(kind="openai", api_key="env:KEY", base_url="http://127.0.0.1:1/v1")
    assert Catalog({"p": other}, models, {}).target("gpt-4o").facts == Facts()
