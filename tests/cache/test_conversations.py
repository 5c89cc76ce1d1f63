"""Turns that the gateway keeps, and the items written out of them."""

import asyncio
import json

import pytest

from extproc.cache.answers import Answers
from extproc.cache.conversations import TURN, KeepTurn, KeptTurns, Turn
from extproc.cache.entry import NoSeal
from extproc.cache.settings import ConversationSettings
from extproc.cache.stores.memory import MemoryStore
from extproc.dialects import by_path
from extproc.settings.config import parse
from extproc.wire.framing import Frame
from extproc.words.dialect import Report
from extproc.words.exchange import Consumer

HOW = by_path()["/v1/responses"].offers.stored.objects.turns
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}
KEPT = {"type": "reasoning", "id": "rs_2", "summary": []}


@pytest.fixture
def turns():
    return KeptTurns(Answers(MemoryStore(1 << 20), b"secret" * 8, NoSeal()), ConversationSettings())


@pytest.fixture
def answered(turns, exchange):
    """The items that are kept under the id of an answer, after its last event."""

    def answer(*, alone, stored, status="completed", consumer="demo"):
        made = exchange({"model": "m", "input": "Hi"}, path="/v1/responses", consumer=Consumer(consumer))
        made.answer.report = Report(kept=["resp_1"] if stored else ())
        made.features[TURN] = Turn("", b'[{"role":"user","content":"Hi"}]', alone)
        response = {"id": "resp_1", "object": "response", "status": status, "output": [CALL]}
        data = json.dumps({"type": f"response.{status}", "response": response}).encode()
        keep = KeepTurn(turns)
        assert keep.needed(made, None)
        asyncio.run(keep(made, [Frame(data, data)], True))
        found = asyncio.run(turns.find(made, "resp_1"))
        return None if found is None else json.loads(found.body)

    return answer


@pytest.mark.parametrize(
    ("alone", "stored", "kept"),
    [(True, True, False), (True, False, True), (False, True, True), (False, False, True)],
)
def test_the_gateway_keeps_a_turn_unless_one_provider_has_all_of_them(answered, alone, stored, kept):
    found = answered(alone=alone, stored=stored)
    assert (found is not None) is kept
    if kept:
        assert found == [{"role": "user", "content": "Hi"}, CALL]


def test_an_answer_that_failed_is_not_kept(answered):
    assert answered(alone=False, stored=False, status="failed") is None


def test_a_turn_is_found_by_its_consumer_alone(turns, answered, exchange):
    answered(alone=False, stored=False)
    for name, listed in (("other", True), ("demo", False)):
        made = exchange({"model": "m", "input": "Hi"}, path="/v1/responses", consumer=Consumer(name, listed=listed))
        assert asyncio.run(turns.find(made, "resp_1")) is None
        assert asyncio.run(turns.find(made, "fc_1")) is None


def test_items_are_written_out_without_ids_and_reasoning_that_only_its_provider_has_is_left_out():
    fields = HOW.written_out([CALL, SEALED, KEPT], [{"role": "user", "content": "Hi"}], goes_on=True)
    bare = {name: value for name, value in CALL.items() if name != "id"}
    assert fields == {"input": [bare, SEALED, {"role": "user", "content": "Hi"}], "previous_response_id": None}


@pytest.mark.parametrize("body", [{}, {"input": 1}, {"input": [1, {}, {"id": 2}, {"type": "item_reference"}]}])
def test_any_body_is_taken(body):
    assert HOW.references(body) == []
    assert HOW.previous(body | {"previous_response_id": 1}) is None
    assert HOW.resolved(HOW.added(body), {"x": CALL}) == HOW.added(body)


def test_conversations_that_refer_to_more_are_the_providers():
    for fields in ({"store": False}, {"conversation": "c"}, {"prompt": {"id": "p"}}, {"background": True}):
        assert not HOW.keepable({"input": "Hi", **fields})


def test_that_turns_are_not_kept_without_a_key_is_told():
    text = "stores: {cache: 'sqlite:a.db'}\nproviders: {a: {kind: mock}}\nmodels: {m: {provider: a}}\n"
    from extproc.settings.checks import cache

    assert [path for path, _ in cache.doubts(parse(text))] == [("cache", "key")]
    assert list(cache.doubts(parse(text + "cache: {conversations: {enabled: false}}"))) == []
