"""Errors and lints of the settings of the cache of answers, and the changes that bind at a restart."""

import logging

import pytest

from extproc.cache.answers import open_answers
from extproc.settings.bound import changes_of_fixed
from extproc.settings.checks import doubts

KEYED = "cache: {key: env:CACHE_KEY, rules: [{}]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "cache: {rules: [{}]}\nstores: {cache: 'sqlite:a.db'}",
            "cache.key: answers in SQLite and Redis are encrypted",
        ),
        (
            "cache: {rules: [{}]}\nprocessor: {workers: 2}",
            "stores.cache: memory: keeps the answers of each worker alone",
        ),
        ("stores: {cache: 'memcached:x'}", "stores: the cache must be memory:, sqlite:PATH or redis:"),
        ("cache: {rules: [{match: {key: x}}]}", "cache.rules: 'key' is not one of consumer, team, model"),
        ("cache: {rules: [{ttl: 31d}]}", "cache.rules.0.ttl: input should be less than or equal to"),
        ("cache: {rules: [{ttl: 1ms}]}", "cache.rules.0.ttl: input should be greater than or equal to 1"),
        ("cache: {wait: 9s}", "cache.wait: input should be less than or equal to 8"),
        ("cache: {waiting: -1}", "cache.waiting: input should be greater than or equal to 0"),
        ("cache: {memory: 1KiB}", "cache.memory: input should be greater than or equal to"),
        ("cache: {max_answer: 3MiB}", "cache.max_answer: input should be less than or equal to"),
        (f"cache: {{rules: [{', '.join(['{}'] * 101)}]}}", "cache.rules: value should have at most 100 items"),
    ],
)
def test_errors(errors, text, expected):
    assert any(error.startswith(expected) for error in errors(text)), errors(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{KEYED}\nstores: {{cache: 'sqlite:a.db'}}", "env:CACHE_KEY is not set or has under 32 characters"),
        ("cache: {rules: [{}, {mode: shadow}]}", "it matches every request: the rules below never apply"),
        (
            f"{KEYED}\nstores: {{cache: 'redis://h', counters: 'redis://h'}}",
            "answers may fill the Redis of the budgets",
        ),
        (f"{KEYED}\nstores: {{cache: 'redis://cache.example.com'}}", "the connection is not encrypted"),
    ],
)
def test_lints(settings, text, expected):
    assert any(message.startswith(expected) for _, message in doubts(settings(text)))


def test_a_good_key_has_no_lint(settings, monkeypatch):
    monkeypatch.setenv("CACHE_KEY", "k" * 32)
    found = [path for path, _ in doubts(settings(f"{KEYED}\nstores: {{cache: 'sqlite:a.db'}}"))]
    assert not {("cache", "key"), ("stores", "cache")} & set(found)


def test_without_its_key_nothing_is_kept_and_traffic_goes_on(settings, monkeypatch, caplog):
    found = settings(f"{KEYED}\nstores: {{cache: 'sqlite:a.db'}}")
    for value in ("", "too short"):
        monkeypatch.setenv("CACHE_KEY", value)
        with caplog.at_level(logging.ERROR):
            assert open_answers(found.stores.cache, found.cache) is None
    assert "nothing is cached" in caplog.text


def test_rules_change_at_once_and_the_first_and_the_last_one_bind_at_a_restart(settings):
    none, shadow, enforced, larger, fewer = [
        settings(text)
        for text in (
            "",
            "cache: {rules: [{mode: shadow}]}",
            "cache: {rules: [{ttl: 5s}, {scope: team}], wait: 1s}",
            "cache: {rules: [{}], memory: 2MiB}",
            "cache: {rules: [{}], semantic: {memory: 2MiB}}",
        )
    ]
    assert changes_of_fixed(enforced, shadow) == []
    for other in (none, larger, fewer):
        assert changes_of_fixed(other, shadow) == changes_of_fixed(shadow, other) == ["cache"]


OWN = "consumers: [{name: own, keys: [{env: KEY_own}]}]\n"
EMBED, VERIFY = "embeddings: {model: m, consumer: own}", "verify: {model: n, consumer: own}"


def similar(semantic, rule="semantic: enforce", more=OWN):
    return f"{more}cache: {{semantic: {{{semantic}}}, rules: [{{{rule}}}]}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # a file of an earlier release
        (
            "cache: {rules: [{semantic: enforce}]}",
            "cache.rules.0.semantic: a score alone may give the answer to another",
        ),
        (similar(f"threshold: 0.9, {EMBED}"), "cache.rules.0.semantic: a score alone may give the answer to another"),
        ("cache: {rules: [{semantic: shadow}]}", "cache.rules.0.semantic: questions are compared by vectors: give"),
        (similar(VERIFY), "cache.semantic.verify: it judges what `embeddings` find"),
        (similar(f"{EMBED}, {VERIFY}"), "cache.semantic.threshold: give the threshold from which"),
        (
            similar(f"threshold: 0.9, {EMBED}, {VERIFY}", more=""),
            "cache.semantic.verify.consumer: there is no consumer",
        ),
        (
            similar(f"threshold: 0.9, {EMBED}, {VERIFY.replace('n,', 'x,')}"),
            "cache.semantic.verify.model: there is no model",
        ),
        (
            similar(f"threshold: 0.9, {EMBED}, {VERIFY.replace('}', ', timeout: 8s}')}"),
            "cache.semantic.verify.timeout: input",
        ),
        (
            similar(f"threshold: 0.9, {EMBED}, {VERIFY.replace('}', ', max_text: 9}')}"),
            "cache.semantic.verify.max_text: inp",
        ),
        (similar("questions: {a: [b], c: [b]}"), "cache.semantic.questions: 'b' stands under two questions"),
        (similar("questions: {'': []}"), "cache.semantic.questions"),
        (
            similar(f"questions: {{a: {[str(each) for each in range(10_000)]}}}"),
            "cache.semantic.questions: at most 10000",
        ),
    ],
)
def test_answers_to_questions_in_other_words_need_a_verdict_or_a_list(errors, monkeypatch, text, expected):
    monkeypatch.setenv("KEY_own", "sk-gw-own")
    assert any(error.startswith(expected) for error in errors(text)), errors(text)


@pytest.mark.parametrize(
    "text",
    [
        similar("questions: {a: [b]}"),
        similar(EMBED, "semantic: shadow"),
        similar(f"threshold: 0.9, {EMBED}, {VERIFY}"),
        similar("", "semantic: enforce, mode: 'off'"),
    ],
)
def test_settings_of_other_words_that_are_good(errors, text):
    assert errors(text) == []
