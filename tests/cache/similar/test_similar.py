"""Questions in other words: what is near, what is kept apart, and conversations in which the cache compares them."""

import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="the extra `semantic`")

from extproc.cache.similar.finder import words
from extproc.cache.similar.index import Index, Row, np
from extproc.cache.similar.wording import Said, agree, said
from extproc.cache.stores import CacheError
from extproc.guardrails import Failure
from extproc.words.actions import Continue
from tests.cache.test_stages import ANSWER, PRICED, QUESTION, again, content, hit, paid, paid_stream
from tests.talk import answers, asks, sends, streams

RULES = "cache: {rules: [{ttl: 60s, semantic: enforce}]}"
SHADOW = RULES.replace("enforce", "shadow")
PAIRS = Path(__file__).parents[3] / "bench" / "similar.jsonl"


def asking(text, **more):
    return QUESTION | {"messages": [{"role": "user", "content": text}]} | more


FIRST = asking("What is the capital of Australia?", temperature=0)
LATER = asking("Please, what is the capital of australia", temperature=0)


async def test_a_question_in_other_words_gets_the_kept_answer_and_its_score(world):
    gateway = world(f"{PRICED}\n{RULES}")
    await paid(gateway, FIRST)
    reply = await again(gateway, LATER)
    assert hit(reply)
    assert content(reply) == ANSWER
    assert 0.95 <= float(reply.headers["x-ai-cache-similarity"]) <= 1
    assert hit(await again(gateway, LATER | {"stream": True}))
    entry = gateway.log[1]
    assert (entry["cache"], entry["saved_usd"], entry["outcome"]) == ("similar", 0.00001, "ok")
    assert entry["similarity"] >= 0.95
    assert gateway.metric("extproc_cache_total", outcome="similar") == 2
    assert gateway.metric("extproc_cache_saved_usd_total", mode="enforce", consumer="anonymous", team="") > 0
    assert not hit(await again(gateway, LATER, x_ai_cache="exact"))
    gateway.clock.now += 60
    assert not hit(await again(gateway, LATER))


async def test_another_turn_system_prompt_tool_parameter_or_scope_is_never_compared(world):
    gateway = world(RULES.replace("ttl: 60s", "sampled: true"))
    await paid(gateway, FIRST)
    last = LATER["messages"]
    tool = {"type": "function", "function": {"name": "f"}}
    for other in (
        {"messages": [{"role": "system", "content": "Be brief."}, *last]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}, *last]},
        {"messages": [*last, {"role": "assistant", "content": "Canberra"}]},
        {"temperature": 0.5},
        {"max_tokens": 5},
        {"tools": [tool]},
        {"model": "n"},
        {"messages": [{"role": "user", "content": LATER["messages"][0]["content"] + "!" * 500}]},
    ):
        assert not hit(await again(gateway, LATER | other)), other
    assert hit(await again(gateway, LATER))


async def test_two_consumers_share_no_question_unless_the_scope_says_so(world, monkeypatch):
    for name in ("ada", "bob"):
        monkeypatch.setenv(f"KEY_{name}", f"sk-gw-{name}")
    people = ", ".join(f"{{name: {name}, team: t, keys: [{{env: KEY_{name}}}]}}" for name in ("ada", "bob"))
    people = f"consumers: [{people}]\nteams: {{t: {{}}}}"
    for scope in ("consumer", "team", "all"):
        gateway = world(f"{people}\n{RULES.replace('ttl: 60s', f'scope: {scope}')}")
        await paid(gateway, FIRST, authorization="Bearer sk-gw-ada")
        assert hit(await again(gateway, LATER, authorization="Bearer sk-gw-ada"))
        assert hit(await again(gateway, LATER, authorization="Bearer sk-gw-bob")) is (scope != "consumer")


@pytest.mark.parametrize("rules", [SHADOW, RULES.replace("ttl: 60s", "mode: shadow")])
async def test_shadow_mode_counts_what_would_have_hit_and_keeps_samples_without_texts(world, rules):
    gateway = world(f"{PRICED}\n{rules}")
    await paid(gateway, FIRST)
    _, onward, head, _ = await paid(gateway, LATER)
    assert isinstance(onward, Continue)
    assert head.set_headers.get("x-ai-cache") == ("miss" if rules == SHADOW else None)
    assert (gateway.log[1]["cache"], gateway.log[1]["saved_usd"]) == ("similar_shadow", 0.00001)
    assert gateway.metric("extproc_cache_saved_usd_total", mode="shadow", consumer="anonymous", team="") > 0
    [sample] = gateway.answers.similar.samples
    assert (sample["hit"], sample["consumer"], sample["model"], sample["saved_usd"]) == (
        True,
        "anonymous",
        "m",
        0.00001,
    )
    assert "capital" not in json.dumps(sample) + repr(gateway.answers.similar.index._parts.popitem()[1].rows)


async def test_samples_show_texts_where_the_settings_say_so_and_near_misses_too(world):
    gateway = world("cache: {semantic: {samples: texts, threshold: 0.99}, rules: [{semantic: shadow}]}")
    await paid(gateway, FIRST)
    await paid(gateway, asking("What is Australia's capital city now?", temperature=0))
    await paid(gateway, LATER)
    found = [(each["hit"], each["kept_text"], each["asked_text"]) for each in gateway.answers.similar.samples]
    assert found[-1][0] in (True, False)
    assert (found[-1][1], found[-1][2]) == (FIRST["messages"][0]["content"], LATER["messages"][0]["content"])


async def test_a_question_whose_answer_was_deleted_or_cleared_is_forgotten(world):
    gateway = world(RULES)
    similar = gateway.answers.similar
    await paid(gateway, FIRST)
    assert (similar.index.count, hit(await again(gateway, LATER))) == (1, True)
    await gateway.answers.forget("anonymous")
    assert (similar.index.count, len(similar.samples), hit(await again(gateway, LATER))) == (0, 0, False)
    await paid(gateway, FIRST)
    await gateway.answers._store.clear()  # the answer left with its time, or for lack of room
    assert not hit(await again(gateway, LATER))
    assert similar.index.count == 0
    await paid(gateway, FIRST)
    assert (await gateway.answers.stats())["vectors"] == 1
    await gateway.answers.forget(None)
    assert (await gateway.answers.stats())["vectors"] == 0


async def test_a_question_outlives_a_store_that_does_not_answer_for_a_while(world, monkeypatch):
    gateway = world(RULES)
    await paid(gateway, FIRST)

    async def away(_key):
        raise CacheError("away")

    with monkeypatch.context() as patched:
        patched.setattr(gateway.answers._store, "get", away)
        assert not hit(await again(gateway, LATER))
        assert not hit(await again(gateway, LATER))
    gateway.answers._rests_until = 0.0
    assert hit(await again(gateway, LATER))


async def test_an_answer_that_is_not_kept_is_no_answer_to_another_question(world):
    gateway = world(RULES)
    await paid_stream(gateway, FIRST | {"stream": True}, b"data: {}\n\n")
    assert gateway.answers.similar.index.count == 0
    assert not hit(await again(gateway, LATER))


async def test_equal_requests_that_wait_get_the_answer_that_the_first_one_found_by_its_meaning(world):
    gateway = world(RULES)
    await paid(gateway, FIRST)
    replies = await asyncio.gather(*[again(gateway, LATER) for _ in range(20)])
    assert all(hit(reply) for reply in replies)
    assert len(gateway.answers.flights) == 0


# --- wording


def test_pairs_that_must_be_kept_apart_are_and_those_that_differ_in_form_are_found():
    """At the default threshold, on pairs written for it: see docs/cache.md."""

    def near(one, other):
        a, b = said(one), said(other)
        x, y = words(one), words(other)
        index = Index(1 << 20)
        index.add(b"", x, Row(b"k", b"", 1e12, a))
        return a.facts == b.facts and agree(a, b) and asyncio.run(index.best(b"", y, None, 0.95, 100)) is not None

    hits = wrong = formal = found = 0
    for line in PAIRS.read_text(encoding="utf-8").splitlines():
        group = json.loads(line)
        same = [near(group["question"], other) for other in group["same"]]
        found += sum(same[:2])
        formal += 2
        hits += sum(same)
        wrong += sum(near(group["question"], other) for other in group["other"].values())
    assert wrong == 0
    assert hits >= 60
    assert found / formal > 0.7


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Pay 1,000 to Ann", "pay 1000 to ann"),
        ("It isn't open", "it is not open"),
        ("from Oslo to Rome", "from oslo to rome"),
        ("three apples", "3 apples"),
        ("What's the weather?", "what is the weather"),
    ],
)
def test_the_same_facts_in_another_spelling_agree(one, other):
    assert said(one).facts == said(other).facts
    assert agree(said(one), said(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("from Oslo to Rome", "from Rome to Oslo"),
        ("5 kg", "5 lb"),
        ("1.5", "15"),
        ("before lunch", "after lunch"),
        ("show users", "show no users"),
        ("when was it", "where was it"),
        ("how many", "how much"),
        ('say "yes"', 'say "no way"'),
        ("a + b", "a - b * c"),
        ("ist offen", "ist nicht offen"),
        ("我要", "我不要"),
        ("iPhone 12", "iPad 12"),
    ],
)
def test_other_facts_never_agree(one, other):
    a, b = said(one), said(other)
    assert not (a.facts == b.facts and agree(a, b))


# --- the index


def row(number, owner=b"o", ends=1e12):
    return Row(number.to_bytes(4, "big"), owner, ends, Said((), said("")[1], frozenset()))


def unit(*values):
    return np.asarray(values, np.float32)


async def test_the_nearest_row_that_has_not_ended_is_found_also_on_the_thread(monkeypatch):
    for inline in (1 << 20, 0):
        monkeypatch.setattr("extproc.cache.similar.index._INLINE", inline)
        index = Index(1 << 20)
        for number in range(20):
            index.add(b"p", unit(1, number / 100), row(number))
        index.add(b"p", unit(1, 0.5), row(99, ends=100))
        found = await index.best(b"p", unit(1, 0.5), None, 0.9, 100)
        assert found.row.key == (19).to_bytes(4, "big")
        assert await index.best(b"p", unit(-1, 0), None, 0.5, 100) is None
        assert await index.best(b"q", unit(1, 0), None, 0.5, 100) is None
        assert await index.best(b"p", unit(1, 0, 0), None, 0.5, 100) is None  # another model's
        assert await index.best(b"p", unit(0, 0), None, 0.5, 100) is None
        index.remove(b"p", (19).to_bytes(4, "big"))
        assert (await index.best(b"p", unit(1, 0.5), None, 0.9, 100)).row.key == (18).to_bytes(4, "big")


async def test_the_index_keeps_its_bound_by_dropping_old_partitions_and_then_old_rows():
    index = Index(100_000)
    for number in range(300):
        index.add(number.to_bytes(2, "big"), unit(*[1.0] * 64), row(number))
        assert index.size <= 100_000
    assert 0 < index.count < 100
    index.clear()
    assert (index.size, index.count) == (0, 0)
    for number in range(500):
        index.add(b"one", unit(number, 1.0, *[0.0] * 62), row(number))
        assert index.size <= 100_000
    assert 50 < index.count < 110
    newest = await index.best(b"one", unit(499, 1.0, *[0.0] * 62), None, 0.99, 100)
    assert newest is not None
    index.add(b"one", unit(499, 1.0, *[0.0] * 62), row(499))  # renewed
    before = index.count
    index.forget(b"o")
    assert (index.count, before > 0) == (0, True)
    index.add(b"big", unit(*[1.0] * 50_000), row(1))  # larger than the whole
    assert index.count == 0


# --- an embedding model


MODEL = "semantic: {threshold: 0.9, embeddings: {model: m, consumer: ada}}"
MODELLED = f"cache: {{{MODEL}, rules: [{{ttl: 60s, semantic: enforce}}]}}"
ADA = "consumers: [{name: ada, keys: [{env: KEY_ada}]}]"


@pytest.fixture
def vectors(monkeypatch):
    """The vectors that the embedding model gives, by the text's first word; and the texts that it was asked for."""
    monkeypatch.setenv("KEY_ada", "sk-gw-ada")
    known, asked = {}, []

    async def vector(self, text):
        asked.append(text)
        await asyncio.sleep(0)
        found = known[text.split()[0]]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("extproc.cache.similar.model.Model.vector", vector)
    return known, asked


ANY = {"authorization": "Bearer sk-gw-ada"}


async def test_meanings_are_compared_by_the_vectors_of_a_model(world, vectors):
    known, asked = vectors
    known |= {"Capital": [1.0, 0.0], "Main": [0.99, 0.1], "Currency": [0.0, 1.0], "Broken": Failure("timeout")}
    known |= {"Nan": [float("nan"), 1.0]}
    gateway = world(f"{ADA}\n{MODELLED}")
    await paid(gateway, asking("Capital of france"), **ANY)
    assert hit(await again(gateway, asking("Main city of france"), **ANY))
    for other in ("Currency of france", "Broken of france", "Nan of france", "Main city of 3"):
        assert not hit(await again(gateway, asking(other) if other != "Main city of 3" else asking("Main 3"), **ANY))
    assert (await gateway.answers.stats())["vector_failures"] == 2
    assert len(asked) == 6
    await again(gateway, asking("Capital of france"), **ANY)
    assert len(asked) == 6  # an equal request asks no model


async def test_in_shadow_mode_a_request_does_not_wait_for_the_model(world, vectors):
    known, asked = vectors
    known |= {"Capital": [1.0, 0.0], "Main": [0.99, 0.1]}
    gateway = world(f"{ADA}\n{MODELLED.replace('enforce', 'shadow')}")
    await paid(gateway, asking("Capital of france"), **ANY)
    stream = gateway.stream()
    await asks(**ANY)(stream)
    onward = await sends(asking("Main city of france"))(stream)
    assert isinstance(onward, Continue)
    assert asked == ["Capital of france"]
    await answers()(stream)
    await streams(ANSWER, end=True)(stream)
    await stream.on_end()
    assert gateway.log[1]["cache"] == "similar_shadow"
    assert gateway.answers.similar.index.count == 1
