"""Questions in other words at two gateways that share a Redis, one of them with two workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Gateway, eventually
from tests.redis_server import RedisServer

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox, price: {input: 100, output: 200}}}
stores: {cache: "redis://127.0.0.1:PORT"}
consumers:
  - {name: ada, team: red, keys: [{env: KEY_ada}]}
  - {name: bob, team: red, keys: [{env: KEY_bob}]}
  - {name: eve, team: blue, keys: [{env: KEY_eve}]}
teams: {red: {}, blue: {}}
cache:
  key: env:CACHE_KEY
  rules:
    - {match: {label.shared: "yes"}, scope: team, semantic: enforce}
    - {semantic: enforce}
"""
FIRST, LATER = "What is the capital of Australia?", "Please, what is the capital of australia"
TEAM = {"x-ai-shared": "yes"}


def vectors(gateway: Gateway) -> int:
    return int(gateway.http.get(gateway.admin + "/cache").json()["vectors"])


def test_a_question_at_one_gateway_is_answered_and_forgotten_at_all_of_them(
    start: Callable[..., Gateway], tmp_path: Path
):
    pytest.importorskip("numpy", reason="the extra `semantic`")
    RedisServer.need()
    server = RedisServer(tmp_path)
    server.start()
    env = {f"KEY_{name}": f"sk-gw-{name}" for name in ("ada", "bob", "eve")}
    env["CACHE_KEY"] = "a secret of at least 32 characters"
    yaml = YAML.replace("PORT", str(server.port))

    def ask(gateway: Gateway, text: str, name: str = "ada", **headers: str) -> str | None:
        """The score of the kept question; None where there was none."""
        answer = gateway.chat("stub", text, key=f"sk-gw-{name}", headers=headers, temperature=0)
        assert answer.status_code == 200
        return answer.headers.get("x-ai-cache-similarity")

    numbers = itertools.count(1)

    def other_words() -> str:
        """LATER, in a form that no request had."""
        return LATER + "!" * next(numbers)

    try:
        one = start(yaml, env=env)
        two = start(yaml + "processor: {workers: 2}\n", env=env)
        assert ask(one, FIRST) is None
        assert ask(one, FIRST, "bob", **TEAM) is None
        # Both workers of the other gateway find it, and no other consumer or team does.
        eventually(
            lambda: (
                ask(two, other_words())
                and all(two.metric("extproc_cache_total", outcome="similar", worker=number) for number in "01")
            )
        )
        assert eventually(lambda: ask(two, other_words(), "ada", **TEAM))
        for gateway in (one, two):
            assert ask(gateway, LATER, "bob") is None
            assert ask(gateway, LATER, "eve") is None
            assert ask(gateway, LATER, "eve", **TEAM) is None
        known = eventually(lambda: (found := vectors(two)) == vectors(one) and found)
        one.http.post(one.admin + "/cache/forget", json={"consumer": "ada"}).raise_for_status()
        eventually(lambda: vectors(two) == vectors(one) < known)
        assert ask(two, other_words()) is None
        assert eventually(lambda: ask(two, other_words(), "ada", **TEAM))  # bob asked that one
        one.http.post(one.admin + "/cache/forget", json={"consumer": None}).raise_for_status()
        eventually(lambda: vectors(two) == 0)
        server.stop()
        for gateway in (one, two):  # they miss, and no request fails
            assert ask(gateway, other_words()) is None
        server.start()
        eventually(lambda: ask(one, other_words()) and ask(two, other_words()), 20)
    finally:
        server.stop()
