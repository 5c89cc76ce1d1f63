"""Questions that an operator lists as one: what counts as equal, and who gets which answer."""

import pytest

from extproc.cache.questions import Questions, normal, twice
from tests.cache.test_stages import PRICED, QUESTION, again, hit, paid

RESET = {"How do I reset my password?": ["I forgot my password", "password reset"], "Where is my order?": []}
RULES = (
    "cache: {semantic: {questions: {How do I reset my password?: [I forgot my password]}}, rules: [{ttl: 60s, MORE}]}"
)
ENFORCED = RULES.replace("MORE", "semantic: enforce")


def asking(text, **more):
    return QUESTION | {"messages": [{"role": "user", "content": text}]} | more


ONE, OTHER = asking("How do I reset my password?"), asking("I forgot my password")


@pytest.mark.parametrize("text", ["I forgot my password", " I forgot my password\n", "How do I reset my password?"])
def test_blanks_at_the_ends_make_no_difference(text):
    assert Questions(RESET).group(text) == Questions(RESET).group("password reset")


@pytest.mark.parametrize(
    "text",
    ["i forgot my password", "I forgot my password!", "I forgot  my password", "I forgot my\u00a0password", ""],
)
def test_any_other_difference_makes_another_question(text):
    assert Questions(RESET).group(text) is None


def test_letters_that_unicode_calls_the_same_are_the_same_and_no_others():
    assert normal("re\u0301sume\u0301") == normal("résumé") != normal("resume")
    assert normal("x²") != normal("x2")
    assert normal("ﬁ") != normal("fi")


def test_a_text_under_two_questions_is_named():
    assert twice(RESET) == ""
    assert twice({"a": ["b"], "c": [" b "]}) == " b "
    assert twice({"a": ["b", "b", "a"]}) == ""


async def test_listed_questions_share_one_answer_with_everything_else_equal(world):
    gateway = world(f"{PRICED}\n{ENFORCED}")
    await paid(gateway, ONE)
    assert hit(await again(gateway, OTHER))
    assert hit(await again(gateway, OTHER | {"stream": True}))
    assert not hit(await again(gateway, asking("I forgot my username")))
    assert not hit(await again(gateway, OTHER | {"model": "n"}))
    assert not hit(await again(gateway, OTHER | {"max_tokens": 5}))
    assert not hit(await again(gateway, OTHER | {"messages": [*ONE["messages"], *OTHER["messages"]]}))
    assert gateway.metric("extproc_cache_total", outcome="hit") == 2


async def test_a_listed_answer_is_given_once_its_rule_enforces_it_and_the_client_lets_it(world):
    gateway = world(RULES.replace("MORE", "semantic: 'off'"))
    await paid(gateway, ONE)
    assert not hit(await again(gateway, OTHER))
    gateway = world(ENFORCED)
    await paid(gateway, ONE)
    assert not hit(await again(gateway, OTHER, x_ai_cache="exact"))
    assert not hit(await again(gateway, OTHER, x_ai_cache="off"))
    gateway = world(RULES.replace("MORE", "semantic: enforce, mode: shadow"))
    await paid(gateway, ONE)
    await paid(gateway, OTHER)
    assert [entry["cache"] for entry in gateway.log] == ["miss", "shadow"]


async def test_a_changed_list_asks_anew(world):
    gateway, other = world(ENFORCED), world(ENFORCED.replace("I forgot my password", "reset it"))
    stages = [
        next(each for each, *_ in one.pipeline.on_request._stages if type(each).__name__ == "LookUp")
        for one in (gateway, other)
    ]
    for name in ("_answers", "_keys"):
        stages[1].__dict__[name] = stages[0].__dict__[name]
    await paid(gateway, OTHER)
    assert hit(await again(gateway, ONE))
    assert not hit(await again(other, ONE))
