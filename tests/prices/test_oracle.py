"""Our readers of usage and our arithmetic against those of genai-prices, at every model that has a price.

Random usages with every kind of token; the shapes of `tests/dialects/usage_shapes.json`; and usages that were recorded.
The whole dataset of recorded usages, `tests/dataset/usages.json` of that project's repository, is not part of its
package: `EXTPROC_USAGES=usages.json pytest tests/prices/test_oracle.py` compares all of it. `recorded_usages.json` has
one of each of its kinds.
"""

import json
import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random

import genai_prices  # noqa: F401 - the package as its users import it
import pytest
from genai_prices import types
from genai_prices.data import providers

from extproc.dialects import client_apis, provider_apis
from extproc.upstream import prices
from extproc.upstream.providers import kinds
from extproc.words.dialect import Report
from tests.dialects.shapes import SHAPES
from tests.samples import examples

DAY = date(2026, 11, 22)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PROVIDERS = {provider.id: provider for provider in providers}


def some(chance, most):
    """Often none."""
    return chance.randrange(most + 1) if chance.random() < 0.6 else 0


def chat(chance):
    given, written = chance.randrange(4, 300_000), chance.randrange(4, 20_000)
    cached, audio = some(chance, given // 3), some(chance, given // 3)
    cached = 0 if audio else cached  # of both together nobody could say how much they share
    details = {"audio_tokens": some(chance, written // 2), "reasoning_tokens": some(chance, written // 3)}
    usage = {
        "prompt_tokens": given,
        "completion_tokens": written,
        "total_tokens": given + written,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": audio},
        "completion_tokens_details": details,
    }
    return {"choices": [], "usage": usage}


def responses(chance):
    given, written = chance.randrange(4, 300_000), chance.randrange(4, 20_000)
    usage = {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": some(chance, given)},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": some(chance, written)},
    }
    return {"status": "completed", "output": [], "usage": usage}


def anthropic(chance):
    short, long = some(chance, 40_000), some(chance, 40_000)
    usage = {
        "input_tokens": chance.randrange(1, 250_000),
        "cache_read_input_tokens": some(chance, 90_000),
        "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "server_tool_use": {"web_search_requests": some(chance, 5)},
        "output_tokens": chance.randrange(1, 9_000),
    }
    return {"type": "message", "content": [], "usage": usage}


def gemini(chance):
    given = {"TEXT": chance.randrange(1, 250_000)} | {name: some(chance, 9_000) for name in ("AUDIO", "IMAGE", "VIDEO")}
    written = {"TEXT": chance.randrange(1, 9_000), "IMAGE": some(chance, 3_000)}
    cached = {"TEXT": some(chance, given["TEXT"]), "AUDIO": some(chance, given["AUDIO"])}
    thoughts = some(chance, 4_000)
    usage = {
        "promptTokenCount": sum(given.values()),
        "candidatesTokenCount": sum(written.values()),
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": sum(given.values()) + sum(written.values()) + thoughts,
        "cachedContentTokenCount": sum(cached.values()),
        "promptTokensDetails": details(given),
        "candidatesTokensDetails": details(written),
        "cacheTokensDetails": details(cached),
    }
    return {"candidates": [{"content": {"parts": [{"text": "OK"}]}, "finishReason": "STOP"}], "usageMetadata": usage}


def details(counts):
    return [{"modality": name, "tokenCount": count} for name, count in counts.items() if count or name == "AUDIO"]


RANDOM = {
    "openai chat": ("openai", "chat", "openai_chat", chat),
    "openai responses": ("openai", "responses", "openai_responses", responses),
    "anthropic": ("anthropic", "default", "anthropic_messages", anthropic),
    "google": ("google", "default", "gemini_generate_content", gemini),
}


def ours(dialect, body):
    """The usage as the gateway reads it, passed through or translated."""
    found = client_apis().get(dialect)
    if found is None:
        return provider_apis()[dialect].decode_answer(json.dumps(body).encode()).usage
    report = Report()
    found.observe(json.dumps(body).encode(), report)
    return report.usage


def compare(provider, flavor, dialect, body, seen):
    """Cost of one answer at each model of a provider. Returns those at which the two differ by more than rounding."""
    wrong = []
    for model in provider.models:
        price = prices.known_model(provider.id, model.id, DAY).price
        if price is None:
            continue
        _, usage = provider.extract_usage(body | {"model": model.id, "modelVersion": model.id}, api_flavor=flavor)
        try:
            theirs = model.calc_price(usage, provider, genai_request_timestamp=NOON).total_price
        except ValueError:  # it asks for a count that no provider reports
            continue
        seen.append(model.id)
        if model.get_prices(NOON).web_searches_kcount is None:  # the gateway knows what these searches cost
            price = replace(price, fees={})
        cost = prices.cost(price, ours(dialect, body))
        if abs(cost - theirs * prices.NANO) > 1:
            wrong.append((model.id, cost, theirs, body))
    return wrong


@pytest.mark.parametrize("name", RANDOM)
def test_every_kind_of_token_costs_what_the_catalogue_says(name):
    provider, flavor, dialect, make = RANDOM[name]
    chance, seen = Random(7), []
    for _ in range(examples(40)):
        assert compare(PROVIDERS[provider], flavor, dialect, make(chance), seen) == []
    assert len(set(seen)) >= 20


FLAVORS = {
    "openai_chat": ("chat", "default"),
    "openai_responses": ("responses",),
    "anthropic_messages": ("default", "anthropic"),
    "gemini_generate_content": ("default",),
    "aws_converse": ("default",),
    "cohere_chat": ("default",),
    "openai_embeddings": ("embeddings",),
}
DIFFER = {
    "Anthropic: compaction is told beside the message": "it leaves out what is billed beside",
    "Gemini's endpoint for OpenAI's clients: thoughts only in the total": "it leaves them out",
    "Mistral: audio is in the total alone": "it leaves it out",
    "xAI: reasoning told at the top": "it adds the reasoning again",
    "DeepSeek: cached tokens by its own name": "it reads another name",
    "Perplexity: reasoning and citations beside all else, and outside the total": "it leaves them out",
}
"""Shapes of which its reader knows less than ours."""


def plain_shapes():
    for shape in SHAPES:
        provider = PROVIDERS.get(getattr(kinds()[shape.provider], "catalogue", None))
        if shape.answer is None or provider is None:
            continue
        offered = {extractor.api_flavor for extractor in provider.extractors or ()}
        flavor = next((name for name in FLAVORS.get(shape.dialect, ()) if name in offered), None)
        if flavor is not None and shape.name != "Vertex AI: Anthropic":
            yield pytest.param(provider, flavor, shape, id=shape.name)


def by_the_hour(provider, model):
    """Of these the dearest hour counts here, and noon there."""
    info = provider.find_model(model)
    return not isinstance(info.prices, types.ModelPrice) and any(
        isinstance(part.constraint, types.TimeOfDateConstraint) for part in info.prices
    )


@pytest.mark.parametrize(("provider", "flavor", "shape"), list(plain_shapes()))
def test_the_shapes_of_providers_cost_what_the_catalogue_says(provider, flavor, shape):
    seen = []
    wrong = compare(provider, flavor, shape.dialect, shape.answer, seen)
    wrong = [found for found in wrong if not by_the_hour(provider, found[0])]
    if shape.name in DIFFER:
        assert wrong, "no longer different"
    else:
        assert wrong == []
    assert seen or shape.name == "Fireworks: the output may be missing"


# --- recorded usages

RECORDED = Path(os.environ.get("EXTPROC_USAGES") or Path(__file__).with_name("recorded_usages.json"))
READERS = {
    "chat": "openai_chat",
    "responses": "openai_responses",
    "anthropic": "anthropic_messages",
    "embeddings": "openai_embeddings",
}
DEFAULTS = {"anthropic": "anthropic_messages", "google": "gemini_generate_content", "aws": "aws_converse"}
"""Our reader of each provider's default flavor; of all others OpenAI's chat."""
AROUND = {"aws_converse": {"output": {"message": {"role": "assistant", "content": [{"text": "OK"}]}}}}


def recordings():
    """Each recorded usage with each provider and flavor of API that can have sent it."""
    for entry in json.loads(RECORDED.read_text(encoding="utf-8")):
        for extracted in entry["extracted"]:
            for extractor in extracted["extractors"]:
                provider = PROVIDERS.get(extractor["provider_id"])
                # The dataset also lists chats as read by the reader of embeddings, which leaves out the output.
                misread = extractor["api_flavor"] == "embeddings" and "completion_tokens" in entry["body"]["usage"]
                if provider is not None and not misread:
                    yield provider, extractor["api_flavor"], entry["body"]


def test_recorded_usages_cost_what_the_catalogues_own_code_says():
    priced, wrong = set(), []
    for provider, flavor, body in recordings():
        dialect = READERS.get(flavor) or DEFAULTS.get(provider.id, "openai_chat")
        name, usage = provider.extract_usage(body, api_flavor=flavor)
        model = provider.find_model(name or "amazon.nova-micro-v1:0")
        price = None if model is None else prices.known_model(provider.id, model.id, DAY).price
        if model is None or price is None or by_the_hour(provider, model.id):
            continue
        theirs = model.calc_price(usage, provider, genai_request_timestamp=NOON).total_price
        cost = prices.cost(replace(price, fees={}), ours(dialect, AROUND.get(dialect, {}) | body))
        priced.add((provider.id, flavor))
        if abs(cost - theirs * prices.NANO) > 1:
            wrong.append((provider.id, flavor, body, cost, theirs))
    assert wrong == []
    assert len(priced) >= 10
