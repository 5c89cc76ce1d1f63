"""Keys of kept answers: equal for equal requests in any form, and different for everything else."""

import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.cache.key import Keys, neutral
from extproc.cache.settings import CacheRuleSettings
from extproc.cache.stages import obstacle
from extproc.dialects import by_path, client_apis
from extproc.dialects.openai_chat import shapes as chat_shapes
from extproc.dialects.openai_responses import shapes as responses_shapes
from extproc.upstream.providers import ProviderSettings
from extproc.words.dialect import Ask, Endpoint
from extproc.words.exchange import Consumer, Target
from tests.cache.bodies import CHAT, FULL, PATHS, SAME
from tests.exchanges import new_exchange, write

KINDS = {"a": "mock", "b": "mock", "c": "openai", "d": "anthropic"}
PROVIDERS = {name: ProviderSettings(kind=kind) for name, kind in KINDS.items()}
KEYS = Keys(b"secret", PROVIDERS)
FOLDER = Path(__file__).parent.parent / "dialects" / "full_requests"
SPOKEN = [name for name, dialect in client_apis().items() if dialect.offers.reuse.asides]


@pytest.fixture
def key(exchange):
    """The key of a request; `body` takes the place of the one that the exchange was made with."""

    def make(dialect, body, *, scope="consumer", json=None, **more):
        made = exchange(CHAT, **more)
        made.request.dialect, made.request.json = client_apis()[dialect], body if json is None else json
        made.request.endpoint = Endpoint(next(iter(made.request.dialect.endpoints.paths)), "chat")
        made.request.ask.stream = body.get("stream") is True
        found = KEYS(made, scope)
        assert found is not None
        return found

    return make


def full(dialect):
    """The richest request of an API that the tests know, and its path."""
    return FULL.get(dialect) or json.loads((FOLDER / f"{dialect}.json").read_bytes())["full"]["body"]


def places(tree, path=()):
    """Every value below an object or a list, and the objects themselves."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        yield (*path, name)
        yield from places(value, (*path, name))


def at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def changed(value):
    """Other values of the same type, and others."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [value + "x", value.upper() if value.upper() != value else value + "y"]
    if isinstance(value, int | float):
        return [value + 1, value / 4 + 0.3]
    if isinstance(value, list):
        return [[*value, *value[:1]], value[:-1]] if value else [["x"]]
    return [{**value, "a_field_of_tomorrow": 1}, dict(list(value.items())[:-1])] if isinstance(value, dict) else ["x"]


@pytest.mark.parametrize("dialect", SPOKEN)
def test_each_field_changes_the_key_or_is_listed_as_changing_no_answer(key, dialect):
    body, asides = full(dialect), client_apis()[dialect].offers.reuse.asides | {client_apis()[dialect].fields.model}
    known = key(dialect, body)
    for path in places(body):
        for value in changed(at(body, path)):
            other = copy.deepcopy(body)
            at(other, path[:-1])[path[-1]] = value
            assert (key(dialect, body, json=other) == known) is (path[0] in asides), (path, value)
        if path == ("model",):
            continue  # a request without it is none
        other = copy.deepcopy(body)
        del at(other, path[:-1])[path[-1]]
        if path[0] in asides or (dialect in PATHS and path[-1] == "type" and at(body, path) == "message"):
            assert key(dialect, body, json=other) == known, path
        else:
            assert key(dialect, body, json=other) != known, path


@pytest.mark.parametrize("dialect", SPOKEN)
def test_each_field_that_the_gateway_reads_and_any_other_changes_the_key(key, dialect):
    found = client_apis()[dialect]
    names = {
        *found.fields.relied_on,
        *chat_shapes.Request.__struct_fields__,
        *responses_shapes.Request.__struct_fields__,
    }
    names |= {"logit_bias", "prediction", "verbosity", "thinking", "dimensions", "suffix", "a_new_field"}
    names |= found.offers.reuse.asides
    for body in (full(dialect), SAME.get(dialect, full(dialect))):
        known = key(dialect, body)
        for name in names:
            other = {**body, name: "another" if name == "model" else ["another", "value"]}
            aside = name in found.offers.reuse.asides or name == found.fields.model
            assert (key(dialect, body, json=other) == known) is aside, name


def test_the_same_request_has_one_key_in_every_api_and_every_form(key):
    keys = {
        key(dialect, form | more)
        for dialect, body in SAME.items()
        for form in (body, dict(reversed(body.items())))
        for more in ({}, {"stream": True}, {"stream": True, "service_tier": "auto", "metadata": {"user_id": "u"}})
    }
    [(_, plain)] = keys
    assert plain


def test_marks_for_the_providers_own_cache_make_no_difference(key):
    marked = copy.deepcopy(SAME["anthropic_messages"])
    marked["messages"][0]["content"][0]["cache_control"] = {"type": "ephemeral"}
    marked["tools"][0]["cache_control"] = {"type": "ephemeral"}
    marked["system"] = [{"type": "text", "text": marked["system"], "cache_control": {"type": "ephemeral"}}]
    assert key("anthropic_messages", marked) == key("openai_chat", CHAT)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a"}, {"role": "system", "content": "Be brief."}],  # its place matters
        [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "a"}],
        [{"role": "user", "content": "a", "name": "ada"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}],
    ],
)
def test_a_request_that_the_neutral_form_does_not_carry_whole_is_one_of_its_api_alone(exchange, key, messages):
    body = {"model": "m", "messages": messages}
    assert neutral(exchange(body)) is None
    assert key("openai_chat", body)[1] is False
    assert key("openai_chat", body) != key("openai_chat", body | {"stream": True})


def test_the_targets_and_their_changes_are_part_of_the_key_and_their_names_and_order_are_not(key):
    m = Target("m", "a", "model")
    known = key("openai_chat", CHAT, targets=(m,))
    other = Target("n", "b", "model")
    assert key("openai_chat", CHAT, targets=(replace(m, name="alias", tries=3),)) == known
    assert key("openai_chat", CHAT, targets=(m, m)) == known
    assert key("openai_chat", CHAT, targets=(m, other)) == key("openai_chat", CHAT, targets=(other, m)) != known
    for change in (
        {"model": "other"},
        {"provider": "b"},
        {"changes": (("temperature", "set", 0),)},
        {"max_output_tokens": 5},
        {"api": "openai_responses"},
        {"supports": frozenset(("tools",))},
        {"known_output": 4096},
    ):
        assert key("openai_chat", CHAT, targets=(replace(m, **change),)) != known, change


def test_headers_and_parameters_that_a_provider_gets_are_part_of_the_key(key, exchange):
    targets = (Target("m", "c", "m"),)
    plain = key("openai_chat", CHAT, targets=targets)
    assert key("openai_chat", CHAT, targets=targets, headers={"openai-beta": "x"}) != plain
    assert key("openai_chat", CHAT, targets=targets, headers={"user-agent": "x"}) == plain
    asked = exchange(CHAT, targets=(Target("m", "d", "m"),))
    without = KEYS(asked, "consumer")
    for query, same in (("?key=sk-gw-1", True), ("?key=sk-gw-2&alt=sse", True), ("?beta=true", False)):
        asked.request.head.path = f"/v1/chat/completions{query}"
        assert (KEYS(asked, "consumer") == without) is same, query


def test_another_secret_or_another_address_of_the_provider_makes_another_key(exchange):
    asked = exchange(CHAT)
    moved = {"a": ProviderSettings(kind="mock", base_url="http://127.0.0.1:1/v1")}
    beta = {"a": ProviderSettings(kind="mock", headers={"x-beta": "1"})}
    keys = [Keys(b"secret", PROVIDERS), Keys(b"other", PROVIDERS), Keys(b"secret", moved), Keys(b"secret", beta)]
    assert len({make(asked, "consumer") for make in keys}) == 4


def test_a_request_with_half_a_character_has_no_key(exchange):
    asked = exchange()
    asked.request.json = {"model": "m", "messages": [{"role": "user", "content": "\ud800"}]}
    assert KEYS(asked, "consumer") is None


CONSUMERS = st.builds(Consumer, st.sampled_from(["a", "b", 'a","b', "team"]), st.sampled_from(["", "a", "team"]))


@given(CONSUMERS, CONSUMERS, st.booleans(), st.sampled_from(["consumer", "team", "all"]))
def test_a_scope_is_never_mistaken_for_another(exchange, one, other, listed, scope):
    other = replace(other, listed=listed)
    same = KEYS(exchange(CHAT, consumer=one), scope) == KEYS(exchange(CHAT, consumer=other), scope)
    if scope == "all":
        assert same
    elif scope == "team" and (one.team or other.team):
        assert same is (one.team == other.team)
    else:
        assert same is ((one.name, one.listed) == (other.name, other.listed))


@pytest.mark.parametrize("scope", ["consumer", "team"])
def test_no_pair_of_consumers_shares_an_answer_unless_the_scope_says_so(exchange, scope):
    """100,000 pairs of equal requests."""
    chance = random.Random(16)
    names = [f"consumer-{number}" for number in range(1500)]
    consumers = [
        Consumer(name, f"team-{chance.randrange(40)}", listed=number % 3 > 0) for number, name in enumerate(names)
    ]
    asked = exchange({"model": "m", "messages": [{"role": "user", "content": "Hello"}]})
    found = []
    for consumer in consumers:
        asked.consumer = consumer
        found.append(KEYS(asked, scope)[0])
    hits = wrong = 0
    for _ in range(100_000):
        one, other = chance.randrange(1500), chance.randrange(1500)
        if one == other:
            continue
        hit = found[one] == found[other]
        hits += hit
        wrong += hit and (scope == "consumer" or consumers[one].team != consumers[other].team)
    assert wrong == 0
    assert (hits == 0) is (scope == "consumer")


def test_every_api_of_clients_says_which_fields_change_no_answer():
    others = {name: dialect for name, dialect in client_apis().items() if name not in SPOKEN}
    asking = {name for name, dialect in others.items() if dialect.family not in ("passed", "count_tokens", "kept")}
    assert {name for name in asking if not name.startswith("gemini_")} <= {"openai_responses_compact"}
    assert by_path()["/v1/embeddings"].offers.reuse.asides == {"user"}


def test_a_form_is_never_kept():
    """Two files of the same name are the same fields."""
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\nID3\r\n--x--\r\n'
    exchange = new_exchange("id")
    write(exchange, body=form, ask=Ask(model="m"))
    assert "form" in obstacle(exchange, CacheRuleSettings())
