"""Mistakes of beginners get a sentence with a place, and a suggestion where there is one."""

import pytest

from extproc.settings.config import parse
from extproc.settings.document import ConfigError

SETTINGS = """\
providers:
  openai: {kind: openai, api_key: env:OPENAI_API_KEY}
models:
  gpt: {provider: openai, model: gpt-4o}
consumers:
  - {name: ci, keys: [{env: CI_KEY}]}
"""


def errors(text):
    with pytest.raises(ConfigError) as error:
        parse(text)
    return [line.removeprefix("gateway.yaml:") for line in str(error.value).splitlines()]


NO_SPACE = "not YAML: did not find expected ',' or '}'; a secret is written env:NAME, without a space"
QUOTES = "put text that begins with * @ % or ` in quotes"
ALIAS = f"not YAML: did not find expected alphabetic or numeric character; {QUOTES}"
TOKEN = f"not YAML: found character that cannot start any token; {QUOTES}"
BRACKETS = "a list is expected: put the value in brackets, [ ]"
DASHES = "a list is expected: begin each entry with a dash"
NUMBER = "a number is expected, without a unit"
UNITS = "requests, tokens, input_tokens, output_tokens, usd, concurrency, tool_calls"
WINDOWS = "minute, hour, day, week, month, quarter, total, call"
PROVIDER = "providers.openai.kind: unknown kind of provider"
MODEL = "virtual_models.a.targets.0.model: there is no model 'gtp' in models or virtual_models"
BUDGET = "name: b, unit: usd, window: day, limit:"


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("kind: openai", "kind: gemini", f"2:12: {PROVIDER} 'gemini'; did you mean 'gcp_gemini'? There are anthropic"),
        ("kind: openai", "kind: OpenAI", f"2:12: {PROVIDER} 'OpenAI'; did you mean 'openai'?"),
        ("kind: openai", "kind: nope", f"2:12: {PROVIDER} 'nope'; there are anthropic"),
        ("r: openai", "r: opnai", "4:9: models.gpt.provider: there is no provider 'opnai'; did you mean 'openai'?"),
        ("env:OPENAI_API_KEY", "${OPENAI_API_KEY}", f"2:36: file: {NO_SPACE}"),
        ("env:OPENAI_API_KEY", "env: OPENAI_API_KEY", f"2:38: file: {NO_SPACE}"),
        ("  gpt:", "  *:", f"4:4: file: {ALIAS}"),
        ("model: gpt-4o", "model: @cf/llama", f"4:34: file: {TOKEN}"),
        ("  gpt: {", "  - {name: gpt, ", "3:1: models: a mapping is expected: {NAME: …}"),
        ("  - {name: ci, ", "  ci: {", f"5:1: consumers: {DASHES}"),
        ("model: gpt-4o", "price: {input: $2, output: 8}", f"4:35: models.gpt.price.input: {NUMBER}"),
        ("name: ci,", "name: ci, expires: 31.12.2026,", "6:16: consumers.0.expires: a date is expected: 2027-01-31"),
    ],
)
def test_a_mistake_in_an_entry_is_explained(right, wrong, expected):
    assert errors(SETTINGS.replace(right, wrong))[0].startswith(expected)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "listener: {host: a}",
            "listener.host: there is no such setting; there are address, cors, max_connections, my_usage, port",
        ),
        ("listener: {address: localhost}", "listener.address: an IP address is expected: 127.0.0.1 for this machine"),
        ("teams: [platform]", "teams: a mapping is expected: {NAME: …}"),
        ("teams: {a: {models: '*'}}", f"teams.a.models: {BRACKETS}"),
        ("guardrails: [pii]", "guardrails.0: a mapping is expected: {name: …, kind: …}"),
        (
            "guardrails: [{name: g, kind: pi}]",
            "guardrails.0.kind: there is no kind 'pi'; did you mean 'pii'? There are a",
        ),
        ("virtual_models: {a: {targets: [{model: gtp}]}}", f"{MODEL}; did you mean 'gpt'?"),
        ("budgets: {b: {unit: usd}}", f"budgets: {DASHES}"),
        ("budgets: [{unit: USD}]", f"budgets.0.unit: one of {UNITS} is expected; did you mean 'usd'?"),
        ("budgets: [{window: monthly}]", f"budgets.0.window: one of {WINDOWS} is expected; did you mean 'month'?"),
        (f"budgets: [{{{BUDGET} 10k}}]", f"budgets.0.limit: {NUMBER}"),
        (f"budgets: [{{{BUDGET} 1, alert_at: 0.75}}]", f"budgets.0.alert_at: {BRACKETS}"),
    ],
)
def test_a_mistake_in_a_section_is_explained(more, expected):
    found = errors(SETTINGS + more)
    assert all(error.startswith("7:") for error in found)
    assert any(error.split(": ", 1)[1].startswith(expected) for error in found)
