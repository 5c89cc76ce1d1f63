"""2,599 pairs of questions, of which 2,403 differ in one thing: no mode gives one the answer to the other.

Every question counts as near to every other one, which no embedding model is as bad as. The model of `verify` knows the
truth in one test and lies in another, which shows how far its word goes.
"""

import json

import pytest

pytest.importorskip("numpy", reason="the extra `semantic`")

from bench.similar_pairs import listed, pairs
from extproc.cache.questions import normal
from tests.cache.similar.models import HEADERS, YAML
from tests.cache.test_stages import QUESTION, again, content, hit, paid
from tests.talk import ANSWER, CHOICE

PAIRS = pairs()
SAME = {(pair.one, pair.other) for pair in PAIRS if pair.same}
ADA = HEADERS["ada"]
LISTED = f"cache: {{semantic: {{questions: {json.dumps(listed(PAIRS))}}}, rules: [{{semantic: enforce}}]}}"


def asking(number, text):
    """A question behind a system prompt of its own, so that pairs do not meet each other."""
    system = {"role": "system", "content": f"Pair {number}"}
    return QUESTION | {"messages": [system, {"role": "user", "content": text}], "temperature": 0}


async def given(gateway, chosen=PAIRS, **headers):
    """The pairs of which the second question got the answer to the first."""
    found = []
    for number, pair in enumerate(chosen):
        text = f"{number}"
        told = ANSWER | {"choices": [CHOICE | {"message": {"content": text}}]}
        await paid(gateway, asking(number, pair.one), told, **headers)
        reply = await again(gateway, asking(number, pair.other), **headers)
        if hit(reply):
            assert content(reply)["choices"][0]["message"]["content"] == text
            found.append(pair)
    return found


def test_there_are_enough_pairs_of_every_kind():
    other = [pair for pair in PAIRS if not pair.same]
    assert len(other) >= 2000
    kinds = {kind: sum(pair.kind == kind for pair in other) for kind in {pair.kind for pair in other}}
    wanted = {"formula", "number", "unit", "symbol", "case", "name", "date", "language", "negation", "order", "by hand"}
    assert kinds.keys() == wanted
    assert min(kinds.values()) >= 80
    assert not any(normal(pair.one) == normal(pair.other) for pair in other)


async def test_where_the_model_knows_the_truth_no_question_gets_the_answer_to_another(world, models):
    models.judge = lambda asked: asked.says((asked.kept, asked.asked) in SAME)
    found = await given(world(YAML), **ADA)
    assert found == [pair for pair in PAIRS if pair.same]


async def test_listed_questions_get_the_answers_that_their_list_says_and_no_other(world):
    found = await given(world(LISTED))
    assert found == [pair for pair in PAIRS if pair.same]


async def test_without_a_verdict_or_a_list_no_question_gets_the_answer_to_another(world, models):
    models.judge = lambda asked: asked.says(True)
    for yaml in ("cache: {rules: [{}]}", YAML.replace("semantic: enforce", "semantic: shadow")):
        assert await given(world(yaml), PAIRS[::7], **(ADA if "ada" in yaml else {})) == []


async def test_a_model_that_lies_is_believed(world, models):
    """The limit that docs/similar-questions.md names: with `verify` the model decides."""
    models.judge = lambda asked: asked.says(True)
    assert await given(world(YAML), PAIRS[:20], **ADA) == PAIRS[:20]
