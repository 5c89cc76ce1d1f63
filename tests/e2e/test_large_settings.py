"""Large settings: thousands of consumers take effect within seconds, and a file that is too large disturbs nothing.

`pytest -m alone -rP tests/e2e/test_large_settings.py` prints the times.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from extproc.access.auth import hash_key
from tests.e2e.conftest import Gateway, eventually

pytestmark = pytest.mark.alone  # it measures time

CONSUMERS, MODELS, TEAMS = 5000, 500, 50
WITHIN = 5.0  # seconds from the edit to its effect
SECRET = "s" * 40

HEAD = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
auth: {key_secret: env:KEY_SECRET}
models:
  stub: {provider: sandbox}
"""


def large(extra: str = "") -> str:
    """Consumers with keys, teams, grants by patterns and budgets of their own."""
    models = "".join(
        f"  m{number}: {{provider: sandbox, price: {{input: 1, output: 2}}, context: 100000}}\n"
        for number in range(MODELS)
    )
    teams = "".join(f'  t{number}: {{models: ["m{number % 10}*", stub]}}\n' for number in range(TEAMS))
    consumers = "".join(
        f'  - {{name: c{number}, team: t{number % TEAMS}, models: ["m{number % 10}*", stub], '
        f'keys: [{{hash: "{hash_key(f"sk-gw-{number}", SECRET)}"}}]}}\n'
        for number in range(CONSUMERS)
    )
    budgets = "".join(
        f"  - {{name: b{number}, match: {{consumer: c{number}}}, unit: usd, limit: 100, window: month}}\n"
        for number in range(CONSUMERS)
    )
    return f"{HEAD}{models}teams:\n{teams}consumers:\n{extra}{consumers}budgets:\n{budgets}"


def asks(gateway: Gateway, key: str) -> int:
    return gateway.chat(key=key).status_code


def test_five_thousand_consumers_take_effect_within_five_seconds(start: Callable[..., Gateway]):
    gateway = start(large(), env={"KEY_SECRET": SECRET})
    assert asks(gateway, "sk-gw-7") == 200
    text = gateway.file.read_text()
    took, slowest = [], 0.0
    for number in range(3):
        entry = f'  - {{name: new{number}, keys: [{{hash: "{hash_key(f"sk-gw-new{number}", SECRET)}"}}]}}\n'
        text = text.replace("consumers:\n", f"consumers:\n{entry}", 1)
        began = time.monotonic()
        gateway.file.write_text(text)
        while True:
            before = time.monotonic()
            status = asks(gateway, f"sk-gw-new{number}")
            slowest = max(slowest, time.monotonic() - before)
            if status == 200:
                break
            assert status == 401
            assert before - began < 60
            time.sleep(0.02)
        took.append(time.monotonic() - began)
        if took[-1] < WITHIN:  # other work on the machine can spoil a measurement, and cannot mend one
            break
    print(f"{CONSUMERS} consumers, {MODELS} models: new keys after {took} s; slowest answer {slowest:.2f} s")  # noqa: T201
    assert min(took) < WITHIN


def test_a_file_with_too_many_values_is_stale_at_once_and_delays_no_stop(start: Callable[..., Gateway]):
    gateway = start(HEAD + "consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]\n", env={"KEY_SECRET": SECRET})
    assert gateway.chat().status_code == 200
    good = gateway.file.read_text()
    bad = good + "groups: {g: {models: [" + "a," * 1_900_000 + "]}}\n"
    began = time.monotonic()
    gateway.file.write_text(bad)
    eventually(lambda: gateway.metric("extproc_settings_stale") == 1)
    stale = time.monotonic() - began
    eventually(lambda: "more than 200000 values" in gateway.http.get(f"{gateway.status}/readyz").text)
    refused = time.monotonic() - began
    assert gateway.chat().status_code == 200
    gateway.file.write_text(good.replace("name: demo", "name: demo, disabled: true"))
    eventually(lambda: gateway.chat().status_code == 401)
    assert gateway.metric("extproc_settings_stale") == 0
    gateway.file.write_text(bad)
    eventually(lambda: gateway.metric("extproc_settings_stale") == 1)
    began = time.monotonic()
    assert gateway.stop(signal.SIGTERM) == 0
    stopped = time.monotonic() - began
    print(f"3.8 MB: stale after {stale:.1f} s, refused after {refused:.1f} s, stopped within {stopped:.1f} s")  # noqa: T201
    assert stopped < 15
