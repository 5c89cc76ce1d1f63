"""The pages about virtual models do what they promise: each runs with its own settings and its own commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.conftest import KEY, Ended, Gateway, eventually

Start = Callable[..., Gateway]

DOCS = Path(__file__).parents[2] / "docs"
PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
EASY = "Translate to French: good morning"
HARD = "Prove that the square root of 2 is irrational."


def settings(page: str) -> str:
    """The full example of a page: its longest block of settings. The others are fragments, which `test_docs` loads."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return max(blocks, key=len)


def commands(page: str) -> list[str]:
    """The commands of a page, block by block."""
    text = (DOCS / page).read_text()
    return [
        block for block in re.findall(r"^(?: {4}.*\n)+", text, re.MULTILINE) if re.match(" +(curl|for|sed) ", block)
    ]


def run(start: Start, page: str, env: dict[str, str] | None = None, more: str = "", *, strict: bool = False) -> Gateway:
    """A gateway with the settings of a page, the built-in mock (or a strict double) for each provider, and `more`
    settings. Consumers but the first have the key `sk-gw-<name>`.
    """
    text = settings(page)
    wanted = yaml.safe_load(text)
    names = tuple(wanted["providers"])
    for name in names:
        here = rf"(^  {name}:\s+\{{kind: openai)(?:, base_url: [^,}}\s]+)?"
        text, count = re.subn(here, rf'\1, base_url: "{{mock_{name}}}"', text, flags=re.MULTILINE)
        assert count == 1, name
    mocks = "".join(f'  mock-{name}: {{kind: mock, base_url: "{{mock_{name}}}"}}\n' for name in names)
    keys = {
        provider["api_key"].removeprefix("env:"): f"sk-{name}"
        for name, provider in wanted["providers"].items()
        if "api_key" in provider
    }
    keys |= {consumer["keys"][0]["env"]: f"sk-gw-{consumer['name']}" for consumer in wanted["consumers"][1:]}
    text = text.replace("providers:\n", "providers:\n" + mocks, 1) + more
    return start(text, mocks=names, env=keys | (env or {}), strict=strict)


def shell(gateway: Gateway, page: str, number: int = 0) -> str:
    """What a block of commands prints, beside the gateway's own settings."""
    text = commands(page)[number]
    text = text.replace("http://127.0.0.1:10000", gateway.url).replace("http://127.0.0.1:9091", gateway.admin)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "EXTPROC_DEMO_KEY": KEY, "PATH": path, "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        ["bash", "-ec", text],
        cwd=gateway.file.parent,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.replace("\r", "")


def told(answer: httpx.Response) -> tuple[int, str, str]:
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-ai-attempts"]), answer.headers["x-ai-provider"], answer.headers["x-ai-model"]


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def edit(gateway: Gateway, *changes: tuple[str, str]) -> None:
    """Change the settings file, and wait until it was taken."""
    before = gateway.metric("extproc_reloads_total", outcome="taken")
    text = gateway.file.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    gateway.file.write_text(text)
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="taken") > before)


def shares(gateway: Gateway, count: int, model: str = "assistant", **fields: Any) -> Counter[str]:
    """How many of `count` requests each model served."""
    return Counter(told(gateway.chat(model, **fields))[2] for _ in range(count))


def places(gateway: Gateway) -> dict[str, dict[str, float]]:
    """What is known of each model at its provider."""
    found: dict[str, dict[str, float]] = gateway.http.get(gateway.admin + "/providers").json()["data"]
    return found


def tries(gateway: Gateway, **labels: str) -> float:
    return gateway.metric("extproc_tries_total", **labels)


# --- failover.md

SPARE = (3, "spare", "llama-3.3-70b")
GPT = (1, "openai", "gpt-4o")


def test_failover_goes_on_to_the_spare_with_what_was_asked_for_it(start: Start):
    gateway = run(start, "failover.md", strict=True)
    assert "x-ai-provider: openai\n" in shell(gateway, "failover.md")
    gateway.fault("openai", "status=500+first=2")
    answer = gateway.chat("assistant", logprobs=True)
    assert told(answer) == SPARE
    assert [seen["body"].get("logprobs") for seen in gateway.seen("openai")[1:]] == [True, True]
    [seen] = gateway.seen("spare")
    assert (seen["body"]["temperature"], "logprobs" in seen["body"]) == (0.3, False)
    eventually(lambda: tries(gateway, provider="openai", model="gpt-4o", outcome="5xx") == 2)
    eventually(lambda: tries(gateway, provider="spare", model="llama-eu", outcome="ok") == 1)
    assert gateway.metric("extproc_failovers_total", provider="spare") == 1
    assert gateway.metric("extproc_failed_tries_seconds_total", provider="openai", outcome="5xx") > 0
    gateway.fault("openai", "status=500+first=1")
    assert told(gateway.chat("assistant", temperature=1)) == (2, "openai", "gpt-4o")
    gateway.fault("openai", "garbage")
    assert told(gateway.chat("assistant")) == SPARE
    gateway.fault("openai", "reset")
    with gateway.stream("assistant", temperature=1) as streamed:
        assert streamed.headers["x-ai-provider"] == "spare"
        streamed.read()
    assert gateway.seen("spare")[-1]["body"]["temperature"] == 1


def test_failover_leaves_the_clients_errors_to_the_client(start: Start):
    gateway = run(start, "failover.md")
    for status in (400, 404, 422):
        gateway.fault("openai", f"status={status}")
        assert gateway.chat("assistant").status_code == status
    assert gateway.seen("spare") == []


def test_failover_when_the_key_is_wrong_or_missing(start: Start):
    gateway = run(start, "failover.md")
    gateway.fault("openai", "status=401")
    assert told(gateway.chat("assistant")) == SPARE
    gateway.fault("spare", "status=401")
    assert refused(gateway.chat("assistant")) == (502, "provider_credential_rejected")
    gateway = run(start, "failover.md", {"OPENAI_API_KEY": ""})
    answer = gateway.chat("assistant")
    assert told(answer) == (1, *SPARE[1:])
    assert gateway.exchange_of(answer)["skipped"] == {"gpt-4o": "no_key"}
    assert gateway.metric("extproc_targets_skipped_total", reason="no_key") == 1


def test_failover_when_an_answer_does_not_begin_in_time(start: Start):
    gateway = run(start, "failover.md")
    edit(gateway, ("per_try_timeout: 120s", "per_try_timeout: 1s"), ("_stream: 30s", "_stream: 1s"))
    gateway.fault("openai", "hang")
    for stream in (False, True):
        assert told(gateway.chat("assistant", stream=stream)) == SPARE
    eventually(lambda: tries(gateway, provider="openai", outcome="timeout") >= 1)


def test_a_model_that_asked_to_be_left_alone_cools_down_while_there_is_another(start: Start):
    gateway = run(start, "failover.md")
    before = "  gpt-4o:     {provider: openai}"
    for status in (429, 503, 529):
        model = f"gpt-4o-{status}"  # what cools down is the model at its provider
        after = f"  gpt-4o:     {{provider: openai, model: {model}}}"
        edit(gateway, (before, after))
        before = after
        gateway.fault("openai", f"status={status}+retry_after=60")
        assert told(gateway.chat("assistant")) == SPARE
        gateway.fault("openai", "")
        eventually(lambda place=f"openai/{model}": "cooling_down_s" in places(gateway).get(place, ()))
        answer = gateway.chat("assistant")
        assert told(answer) == (1, *SPARE[1:])
        assert gateway.exchange_of(answer)["skipped"] == {"gpt-4o": "cooling_down"}
        assert told(gateway.chat("gpt-4o")) == (1, "openai", model)
    edit(gateway, (before, "  gpt-4o:     {provider: openai}"))
    gateway.fault("openai", "status=429")
    assert told(gateway.chat("assistant")) == SPARE
    gateway.fault("openai", "")
    eventually(lambda: told(gateway.chat("assistant")) == GPT)  # after `default`


def test_processes_that_share_a_store_tell_each_other_of_cool_downs(start: Start, tmp_path: Path):
    one, other = (run(start, "failover.md", more=f"stores: {{counters: 'sqlite:{tmp_path}/c.db'}}\n") for _ in "12")
    assert told(other.chat("assistant")) == GPT
    one.fault("openai", "status=503+retry_after=60")
    assert told(one.chat("assistant")) == SPARE
    eventually(lambda: told(other.chat("assistant")) == (1, *SPARE[1:]))
    assert [seen["body"]["model"] for seen in other.seen("spare")] == ["llama-3.3-70b"]


def test_a_provider_that_keeps_failing_is_ejected(start: Start):
    gateway = run(start, "failover.md")
    edit(gateway, ("targets: [{model: llama-eu}, ", "targets: [{model: llama-eu}, {model: gpt-4o}, "))
    gateway.fault("spare", "status=500")
    for _ in range(5):
        assert told(gateway.chat("private")) == (2, "openai", "gpt-4o")
    eventually(lambda: told(gateway.chat("private")) and tries(gateway, provider="spare", outcome="unhealthy") > 0)
    seen = len(gateway.seen("spare"))
    assert told(gateway.chat("private")) == (2, "openai", "gpt-4o")
    assert len(gateway.seen("spare")) == seen


def test_a_target_is_skipped_that_cannot_do_it_or_is_not_meant_for_it(start: Start):
    gateway = run(start, "failover.md")
    answer = gateway.chat("private", PICTURE, headers={"x-ai-data": "public"})  # type: ignore[arg-type]
    assert told(answer) == GPT
    assert gateway.exchange_of(answer)["skipped"] == {"llama-eu": "ability"}
    assert refused(gateway.chat("private", PICTURE)) == (400, "unsupported_by_targets")  # type: ignore[arg-type]
    assert gateway.metric("extproc_targets_skipped_total", reason="no_match") == 2
    edit(gateway, ("context: 128000", "context: 1000"))
    assert told(gateway.chat("private", "word " * 1000, headers={"x-ai-data": "public"})) == GPT
    assert told(gateway.chat("private")) == (1, *SPARE[1:])
    assert told(gateway.chat("spare/llama-3.3-70b")) == (1, *SPARE[1:])


# --- canary.md


def test_a_canary_gets_its_share_and_testers_get_the_canary(start: Start):
    gateway = run(start, "canary.md")
    served = {model: int(count) for count, _, model in map(str.split, shell(gateway, "canary.md").splitlines())}
    assert served["gpt-4.1-mini"] in (4, 5, 6)
    assert served["gpt-4.1"] == 100 - served["gpt-4.1-mini"]
    assert shares(gateway, 5, headers={"x-ai-stage": "staging"}) == {"gpt-4.1-mini": 5}
    assert shares(gateway, 5, key="sk-gw-qa") == {"gpt-4.1-mini": 5}
    assert shares(gateway, 5, key="sk-gw-qa", headers={"x-ai-stage": "other"}) == {"gpt-4.1-mini": 5}
    eventually(lambda: tries(gateway, model="canary", outcome="ok") == served["gpt-4.1-mini"] + 15)
    edit(gateway, ("weight: 95", "weight: 50"), ("weight: 5}", "weight: 50}"))
    assert shares(gateway, 100)["gpt-4.1-mini"] == pytest.approx(50, abs=3)
    edit(gateway, ("{model: canary, weight: 50}", "{model: canary, weight: 0}"))
    assert shares(gateway, 20) == {"gpt-4.1": 20}


def test_a_canary_that_fails_is_invisible_and_weight_0_gets_only_what_fails_over(start: Start):
    gateway = run(start, "canary.md")
    edit(gateway, ("model: gpt-4.1-mini}", "model: gpt-4.1-mini+status=500}"))
    assert {told(gateway.chat("assistant"))[1:] for _ in range(60)} == {("openai", "gpt-4.1")}
    eventually(lambda: 1 <= tries(gateway, model="canary", outcome="5xx") <= 4)
    assert told(gateway.chat("assistant", headers={"x-ai-stage": "staging"}))[2] == "gpt-4.1"
    gateway.fault("openai", "status=429")
    assert told(gateway.chat("assistant")) == (3, "local", "meta-llama/Llama-3.3-70B-Instruct")


# --- sticky-sessions.md


def placed(gateway: Gateway, sessions: int = 100) -> dict[str, str]:
    """Which provider serves each session, asked twice."""
    found = {}
    for number in range(sessions):
        headers = {"x-ai-session": f"chat-{number}"}
        answers = {told(gateway.chat("assistant", headers=headers))[1] for _ in range(2)}
        assert len(answers) == 1, number
        [found[headers["x-ai-session"]]] = answers
    return found


def test_a_session_stays_and_changed_weights_move_only_whom_they_must(start: Start):
    gateway = run(start, "sticky-sessions.md")
    edit(gateway, ("label.session, ttl: 1h", "label.session, ttl: 365d"))  # so that no time ends in the middle
    before = placed(gateway)
    assert 15 <= Counter(before.values())["local"] <= 45
    output = shell(gateway, "sticky-sessions.md").splitlines()
    assert [line for line in output if line.startswith("x-ai-provider:")] == [f"x-ai-provider: {before['chat-42']}"] * 3
    entry = gateway.last(lambda entry: entry.get("labels") == {"session": "chat-42"})
    assert entry["provider"] == before["chat-42"]
    block = "      - {model: gpt, weight: %d}\n      - {model: llama, weight: %d}"
    edit(gateway, (block % (70, 30), block % (60, 40)))
    after = placed(gateway)
    moved = [name for name in before if before[name] != after[name]]
    assert {after[name] for name in moved} == {"local"}
    assert 1 <= len(moved) <= 25
    other = run(start, "sticky-sessions.md")
    edit(other, ("label.session, ttl: 1h", "label.session, ttl: 365d"), (block % (70, 30), block % (60, 40)))
    assert placed(other, 20) == {name: after[name] for name in list(after)[:20]}, "another process decides alike"
    added = f"{block % (60, 40)}\n      - {{model: openai/gpt-4o, weight: 10}}"
    edit(gateway, (block % (60, 40), added))
    assert {shifted for name, shifted in placed(gateway).items() if shifted != after[name]} <= {"openai"}


def test_a_session_goes_to_its_second_choice_and_returns(start: Start):
    gateway = run(start, "sticky-sessions.md")
    edit(gateway, ("label.session, ttl: 1h", "label.session"))
    home = placed(gateway, 10)
    gateway.fault("openai", "status=401")
    away = placed(gateway, 10)
    assert set(away.values()) == {"local"}
    gateway.reset()
    assert placed(gateway, 10) == home


def test_a_session_ends_and_without_one_the_weights_decide_and_a_consumer_can_be_one(start: Start):
    gateway = run(start, "sticky-sessions.md")
    assert shares(gateway, 50)["gpt-4o"] == pytest.approx(35, abs=3)
    assert len(shares(gateway, 20, "batch")) == 1
    edit(gateway, ("sticky: {by: consumer}", "sticky: {by: key}"), ("ttl: 1h", "ttl: 1ms"))
    assert len(shares(gateway, 20, "batch")) == 1
    assert len(shares(gateway, 40, headers={"x-ai-session": "chat"})) == 2


# --- kill-switch.md


def test_the_commands_of_the_kill_switch(start: Start):
    gateway = run(start, "kill-switch.md")
    assert told(gateway.chat("assistant")) == GPT
    output = shell(gateway, "kill-switch.md")
    assert "gateway.yaml: ok\n" in output
    assert "x-ai-model: gpt-4o-mini\nx-ai-attempts: 1\n" in "".join(
        f"{line}\n" for line in output.splitlines() if line.startswith(("x-ai-model", "x-ai-attempts"))
    )
    assert gateway.last()["skipped"] == {"gpt-4o": "disabled"}
    assert gateway.metric("extproc_targets_skipped_total", reason="disabled") == 1
    assert gateway.metric("extproc_reloads_total", outcome="taken") == 1
    assert refused(gateway.chat("gpt-4o")) == (503, "no_provider_available")


def listed(gateway: Gateway) -> set[str]:
    answer = gateway.http.get(gateway.base_url + "/models", headers={"authorization": f"Bearer {KEY}"})
    return {entry["id"] for entry in answer.json()["data"]}


def test_every_kill_switch_of_the_page(start: Start):
    gateway = run(start, "kill-switch.md")
    provider, target = 'base_url: "{}", api_key: env:OPENAI_API_KEY, disabled: {}', "- {{model: gpt-4o, disabled: {}}}"
    url = gateway.mocks["openai"] + "/v1"
    on, off = "false", "true"

    edit(gateway, (target.format(on), target.format(off)))
    assert told(gateway.chat("assistant")) == (1, "openai", "gpt-4o-mini")
    assert told(gateway.chat("gpt-4o")) == GPT
    edit(gateway, (target.format(off), target.format(on)))
    assert told(gateway.chat("assistant")) == GPT

    edit(gateway, (provider.format(url, on), provider.format(url, off)))
    assert told(gateway.chat("assistant")) == (1, "local", "meta-llama/Llama-3.3-70B-Instruct")
    assert refused(gateway.chat("gpt-4o-mini")) == (503, "no_provider_available")
    assert listed(gateway) == {"assistant", "llama"}
    edit(gateway, (provider.format(url, off), provider.format(url, on)))
    assert told(gateway.chat("assistant")) == GPT

    who = "keys: [{{env: EXTPROC_DEMO_KEY}}], disabled: {}"
    edit(gateway, (who.format(on), who.format(off)))
    assert refused(gateway.chat("assistant")) == (401, "invalid_key")
    assert told(gateway.chat("assistant", key="sk-gw-agent")) == GPT


def test_what_runs_ends_and_a_file_with_a_mistake_switches_nothing(start: Start):
    gateway = run(start, "kill-switch.md")
    gateway.fault("openai", "words=60+pace=50ms")
    with gateway.stream("assistant") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        edit(gateway, ("- {model: gpt-4o, disabled: false}", "- {model: gpt-4o, disabled: true}"))
        assert b"[DONE]" in b"".join(pieces)
    good = gateway.file.read_text()
    for mistake in (
        ("gpt-4o-mini: {provider: openai}", "gpt-4o-mini: {provider: nobody}"),
        ("{kind: mock, ", "{timeout: 9s, kind: mock, "),
    ):
        before = gateway.metric("extproc_reloads_total", outcome="refused")
        gateway.file.write_text(good.replace(*mistake, 1).replace("gpt-4o, disabled: true", "gpt-4o, disabled: false"))
        eventually(lambda: gateway.metric("extproc_reloads_total", outcome="refused") > before)  # noqa: B023
        gateway.reset()
        assert told(gateway.chat("assistant")) == (1, "openai", "gpt-4o-mini")


def test_a_provider_that_was_off_at_the_start_can_be_switched_on(start: Start, monkeypatch: pytest.MonkeyPatch):
    text = settings("kill-switch.md").replace(
        "env:OPENAI_API_KEY, disabled: false", "env:OPENAI_API_KEY, disabled: true"
    )
    monkeypatch.setitem(globals(), "settings", lambda _page: text)
    gateway = run(start, "kill-switch.md")
    assert told(gateway.chat("assistant"))[:2] == (1, "local")
    edit(gateway, ("env:OPENAI_API_KEY, disabled: true", "env:OPENAI_API_KEY, disabled: false"))
    assert told(gateway.chat("assistant")) == GPT


# --- latency.md


def test_latency_sends_requests_where_answers_come_soonest(start: Start):
    gateway = run(start, "latency.md")
    gateway.fault("openai", "delay=400ms")
    eventually(lambda: gateway.chat("assistant") and {seen["path"] for seen in gateway.seen("openai")})
    found = Counter(told(gateway.chat("assistant"))[1] for _ in range(60))
    assert found["eu"] >= 45
    eventually(lambda: set(places(gateway)) == {"openai/gpt-4o", "eu/gpt-4o"})
    known = yaml.safe_load(shell(gateway, "latency.md"))["data"]
    assert known["openai/gpt-4o"]["plain_s"] > known["eu/gpt-4o"]["plain_s"]
    assert known["eu/gpt-4o"]["failing"] == 0


# --- cheap-models.md


def test_simple_requests_go_to_the_small_model_and_hard_ones_to_the_large_one(start: Start):
    gateway = run(start, "cheap-models.md")
    assert "x-ai-model: gpt-4.1-mini\n" in shell(gateway, "cheap-models.md")
    assert told(gateway.chat("auto", EASY)) == (1, "openai", "gpt-4.1-mini")
    assert told(gateway.chat("auto", HARD)) == (1, "openai", "gpt-4.1")
    edit(gateway, ("model: gpt-4.1-mini", "model: gpt-4.1-mini+status=500"))
    assert told(gateway.chat("auto", EASY)) == (2, "openai", "gpt-4.1")
    effort = "{model: large, override: {reasoning_effort: low}, max_complexity: 0.4}"
    assert effort in (DOCS / "cheap-models.md").read_text()
    edit(gateway, ("{model: small, max_complexity: 0.4}", effort))
    gateway.reset()
    for text in (EASY, HARD):
        assert told(gateway.chat("auto", text))[2] == "gpt-4.1"
    assert [seen["body"].get("reasoning_effort") for seen in gateway.seen("openai")] == ["low", None]


def test_cost_takes_the_cheapest_whose_price_is_known(start: Start):
    gateway = run(start, "cheap-models.md")
    llama = "meta-llama/Llama-3.3-70B-Instruct"
    assert told(gateway.chat("cheapest"))[2] == llama
    gateway.fault("local", "status=500")
    assert told(gateway.chat("cheapest")) == (2, "openai", "gpt-4.1-mini")
    gateway.reset()
    edit(gateway, (", price: {input: 0.2, output: 0.2}", ""))
    assert told(gateway.chat("cheapest"))[2] == "gpt-4.1-mini"
    gateway.fault("openai", "status=429")
    assert told(gateway.chat("cheapest")) == (3, "local", llama)


def test_downshifting_by_team_and_by_label(start: Start):
    gateway = run(start, "cheap-models.md")
    assert told(gateway.chat("gpt-4.1"))[2] == "gpt-4.1"
    assert "max_completion_tokens" not in gateway.seen("openai")[-1]["body"]
    assert told(gateway.chat("gpt-4.1", headers={"x-ai-step": "summary"}))[2] == "gpt-4.1-mini"
    answer = gateway.chat("gpt-4.1", key="sk-gw-intern")
    assert told(answer)[2] == "gpt-4.1-mini"
    assert gateway.seen("openai")[-1]["body"]["max_completion_tokens"] == 500
    assert gateway.exchange_of(answer)["skipped"]["large"] == "not_granted"
    assert refused(gateway.chat("large", key="sk-gw-intern")) == (403, "model_not_allowed")
    edit(gateway, ("model: gpt-4.1-mini", "model: gpt-4.1-mini+status=500"))
    assert gateway.chat("gpt-4.1", key="sk-gw-intern").status_code == 500


def test_a_budget_that_is_used_up_refuses_and_does_not_downshift(start: Start):
    gateway = run(start, "cheap-models.md")
    budget = "budgets:\n  - {name: large, match: {model: large}, unit: requests, limit: 1, window: hour}\nteams:\n"
    edit(gateway, ("teams:\n", budget))
    assert told(gateway.chat("auto", HARD))[2] == "gpt-4.1"
    assert refused(gateway.chat("auto", HARD)) == (429, "rate_limited")
    assert refused(gateway.chat("auto", EASY)) == (429, "rate_limited")


# --- extproc check --explain, as the pages call it


@pytest.fixture
def explained(
    extproc: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., list[str]]:
    """Call it with a page and options: the targets for the consumer demo, in order, and those skipped."""
    for number, name in enumerate(("OPENAI_API_KEY", "SPARE_KEY", "EU_KEY")):
        monkeypatch.setenv(name, f"sk-{number}")

    def explain(page: str, *options: str) -> list[str]:
        file = tmp_path / "gateway.yaml"
        file.write_text(settings(page))
        done = extproc("check", "--config", file, "--explain", "--consumer", "demo", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = re.search(r"^targets .*\n(?: .*\n)*(?:skipped .*\n(?: .*\n)*)?", done.stdout, re.MULTILINE)
        assert lines, done.stdout
        return [" ".join(line.split()) for line in lines[0].splitlines()]

    return explain


@pytest.mark.parametrize(
    ("page", "model", "more", "wanted"),
    [
        ("failover.md", "assistant", (), [r"targets 1\. gpt-4o", r"2\. gpt-4o", r"3\. llama-eu"]),
        ("failover.md", "private", ("--label", "data=public"), [r"targets 1\. llama-eu", r"2\. gpt-4o"]),
        ("canary.md", "assistant", (), ["targets 1", "2", r"3\. spare .*weight 0", "skipped canary"]),
        ("canary.md", "assistant", ("--label", "stage=staging"), [r"targets 1\. canary"]),
        (
            "sticky-sessions.md",
            "assistant",
            ("--label", "session=chat-42"),
            [".*weight [37]0, sticky by label.session"],
        ),
        ("kill-switch.md", "assistant", (), [r"targets 1\. gpt-4o ", r"2\. gpt-4o-mini", r"3\. llama"]),
        ("latency.md", "assistant", (), [".*not measured yet", ".*not measured yet"]),
        ("cheap-models.md", "auto", (), [r"targets 1\. small .*complexity 0\.[0-3]", r"2\. large .*complexity 0\."]),
        ("cheap-models.md", "cheapest", (), [r"targets 1\. llama .* USD", r"2\. small .* USD", r"3\. large .* USD"]),
    ],
)
def test_explain_shows_what_the_page_says(
    page: str, model: str, more: tuple[str, ...], wanted: list[str], explained: Callable[..., list[str]]
):
    lines = explained(page, "--model", model, *more)
    for line, start in zip(lines, wanted, strict=False):
        assert re.match(start, line), lines
    assert len(lines) >= len(wanted)
