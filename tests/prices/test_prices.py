"""Prices become integers, and the cost of a request is exact."""

from datetime import date
from fractions import Fraction

import pytest
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from extproc.upstream.prices import (
    MOST,
    DatedPriceSettings,
    Known,
    PriceBook,
    PriceSettings,
    at,
    bound,
    cost,
    decimal,
    known_model,
    per_million,
    price,
    prompt_cache,
)
from extproc.words.exchange import Price, Usage

DAY = date(2026, 6, 1)
KINDS = ("input", "output", "cached_input", "cache_write", "reasoning")

rates = st.decimals(0, 1000, places=6)
counts = st.integers(0, 10_000_000)
usages = st.builds(Usage, counts, counts, counts, counts, counts)


@st.composite
def prices(draw):
    def one(**more):
        return Price(*(draw(st.integers(0, 10**12)) for _ in range(6)), **more)

    starts = sorted(draw(st.sets(st.integers(1, 1_000_000), max_size=3)))
    return one(tiers=tuple((start, one()) for start in starts))


# --- the cost


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(), 0),
        (Usage(1), 2500),
        (Usage(1000, 100), 1000 * 2500 + 100 * 10_000),
        (Usage(1000, cached_tokens=400), 600 * 2500 + 400 * 1250),
        (Usage(1000, cache_write_tokens=300), 700 * 2500 + 300 * 3000),
        (Usage(1000, cached_tokens=400, cache_write_tokens=300), 300 * 2500 + 400 * 1250 + 300 * 3000),
        (Usage(0, 100, reasoning_tokens=40), 60 * 10_000 + 40 * 20_000),
        (Usage(10, cached_tokens=99, cache_write_tokens=4), 6 * 1250 + 4 * 3000),  # more parts than the whole
        (Usage(0, 1, reasoning_tokens=9), 20_000),
    ],
)
def test_every_kind_of_token_has_its_price(usage, nano):
    dear = price(2.5, 10, cached_input=1.25, cache_write=3, reasoning=20)
    assert cost(dear, usage) == nano


def test_kinds_without_a_price_cost_as_much_as_the_kind_they_belong_to():
    plain = price(2, 8)
    assert cost(plain, Usage(10, 5, 3, 2, 4)) == 10 * 2000 + 5 * 8000


def test_a_request_can_have_a_price():
    assert cost(price(0, 0, per_request=0.005), Usage()) == 5_000_000


def test_a_fraction_of_a_nano_usd_is_rounded_up_once():
    tiny = price("0.0004", "0.0003")
    assert cost(tiny, Usage(1, 1)) == 1
    assert cost(tiny, Usage(10, 10)) == 7


def test_beyond_a_tier_every_token_costs_that_tiers_price():
    tiered = Price(*[10**9] * 5, tiers=((100, Price(*[2 * 10**9] * 5)), (200, Price(*[3 * 10**9] * 5))))
    assert [cost(tiered, Usage(tokens, 1)) for tokens in (99, 100, 101, 200, 201)] == [
        *(100 * 1000, 101 * 1000, 102 * 2000, 201 * 2000, 202 * 3000)
    ]


@given(st.tuples(*[rates] * 5), st.decimals(0, 10, places=9), usages)
def test_the_cost_is_never_too_low_and_less_than_a_unit_too_high(given, request, usage):
    """I15."""
    input, output, cached, write, reasoning = given
    found = cost(
        price(input, output, cached_input=cached, cache_write=write, reasoning=reasoning, per_request=request), usage
    )
    written = min(usage.cache_write_tokens, usage.input_tokens)
    read = min(usage.cached_tokens, usage.input_tokens - written)
    thought = min(usage.reasoning_tokens, usage.output_tokens)
    parts = [
        (input, usage.input_tokens - written - read),
        (cached, read),
        (write, written),
        (output, usage.output_tokens - thought),
        (reasoning, thought),
    ]
    exact = sum(Fraction(rate) * tokens * 1000 for rate, tokens in parts) + Fraction(request) * 10**9
    assert 0 <= found - exact < 1


@given(prices(), usages, st.integers(0, 1000), st.integers(0, 1000))
def test_no_usage_within_the_bounds_costs_more_than_the_bound(found, usage, more_input, more_output):
    held = bound(found, usage.input_tokens + more_input, usage.output_tokens + more_output)
    assert cost(found, usage) <= held <= MOST


def test_no_sum_is_too_large_to_be_counted():
    dear = price(1_000_000, 1_000_000)
    assert cost(dear, Usage(10**9, 10**9)) == bound(dear, 10**9, 10**9) == MOST


@pytest.mark.parametrize(
    ("nano", "text"), [(0, "0"), (1, "0.000000001"), (12_500_000, "0.0125"), (3 * 10**9, "3"), (10 * 10**9, "10")]
)
def test_money_is_shown_as_a_plain_decimal(nano, text):
    assert decimal(nano) == text


# --- the applicable price


def dated(model, input, **more):
    return DatedPriceSettings.model_validate({"model": model, "input": input, "output": 0, **more})


OWN = PriceSettings(input=50, output=0)
CATALOGUE = Known(None, price(60, 0))


@pytest.mark.parametrize(
    ("entries", "own", "found"),
    [
        ([], None, 60),
        ([], OWN, 50),
        ([dated("gpt", 1)], OWN, 1),
        ([dated("their-name", 1)], None, 1),
        ([dated("g*", 1), dated("other", 2)], None, 1),
        ([dated("gpt", 1, provider="p")], None, 1),
        ([dated("gpt", 1, provider="q")], OWN, 50),
        ([dated("gpt", 1), dated("gpt", 2, **{"from": "2026-01-01"})], None, 2),
        ([dated("gpt", 2, **{"from": "2026-01-01"}), dated("gpt", 1)], None, 2),
        ([dated("gpt", 1), dated("gpt", 2, **{"from": "2026-06-02"})], None, 1),
        ([dated("gpt", 1), dated("gpt", 2, **{"from": "2026-06-01"})], None, 2),
        ([dated("gpt", 1, **{"from": "2026-06-02"})], None, 60),
        ([dated("*", 1), dated("gpt", 2), dated("g*", 3)], None, 2),
        ([dated("gpt", 1, **{"from": "2026-01-01"}), dated("*", 2, **{"from": "2026-02-01"})], None, 2),
    ],
)
def test_the_latest_valid_price_applies_then_the_models_own_then_the_catalogues(entries, own, found):
    book = PriceBook(entries, DAY)
    assert per_million(book.find("gpt", "p", "their-name", own, CATALOGUE))["input"] == found


def test_a_price_may_be_unknown():
    assert PriceBook((), DAY).find("m", "p", "m", None, Known()) is None


# --- the catalogue


def test_tiers_are_read_from_the_catalogue():
    known = known_model("anthropic", "claude-sonnet-4-5", DAY).price
    assert [start for start, _ in known.tiers] == [200_000]
    assert (per_million(known)["input"], per_million(at(known, 200_001))["input"]) == (3, 6)
    assert (known.cache_write, at(known, 200_001).cache_write) == (3_750_000_000, 7_500_000_000)


def test_prices_that_change_by_the_hour_count_as_the_highest():
    assert per_million(known_model("deepseek", "deepseek-reasoner", DAY).price)["output"] == 2.19


def test_embeddings_have_no_output_price():
    known = known_model("openai", "text-embedding-3-small", DAY).price
    assert known.input > 0
    assert known.output == 0


def test_a_price_per_request_is_read():
    assert known_model("perplexity", "sonar", DAY).price.per_request == 12 * 10**12


@pytest.mark.parametrize("provider", providers, ids=lambda provider: provider.id)
def test_the_whole_catalogue_can_be_compiled(provider):
    for model in provider.models:
        found = known_model.__wrapped__(provider.id, model.id, DAY).price
        if found is not None:
            assert all(getattr(found, kind) >= 0 for kind in KINDS)
            assert list(found.tiers) == sorted(found.tiers, key=lambda tier: tier[0])


def test_the_prompt_cache_of_a_provider_saves_by_reads_and_costs_by_writes():
    found = price(10, 20, cached_input=1, cache_write=12.5)
    usage = Usage(1000, 10, cached_tokens=600, cache_write_tokens=200)
    assert prompt_cache(found, usage) == (600 * 9_000, 200 * 2_500)
    plain = price(10, 20)
    assert prompt_cache(plain, usage) == (0, 0)
    without = Usage(1000, 10)
    assert cost(found, usage) == cost(found, without) - 600 * 9_000 + 200 * 2_500
