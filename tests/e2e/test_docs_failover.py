"""docs/failover.md, with its own settings and commands."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import eventually
from tests.e2e.pages import (
    GPT,
    PICTURE,
    SPARE,
    Start,
    edit,
    places,
    refused,
    run,
    shell,
    told,
    tries,
)


def test_failover_sends_the_spare_the_request_meant_for_it(start: Start):
    gateway = run(start, "failover.md", strict=True)
    assert "x-ai-provider: openai\n" in shell(gateway, "failover.md")
    gateway.fault("openai", "status=500+first=2")
    answer = gateway.chat("assistant", logprobs=True)
    assert told(answer) == SPARE
    assert [seen["body"].get("logprobs") for seen in gateway.seen("openai")[1:]] == [True, True]
    [seen] = gateway.seen("spare")
    assert (seen["body"]["temperature"], "logprobs" in seen["body"]) == (0.3, False)
    eventually(lambda: tries(gateway, provider="openai", model="gpt-6.1-sol", outcome="5xx") == 2)
    eventually(lambda: tries(gateway, provider="spare", model="llama-eu", outcome="ok") == 1)
    assert gateway.metric("extproc_failovers_total", provider="spare") == 1
    assert gateway.metric("extproc_failed_tries_seconds_total", provider="openai", outcome="5xx") > 0
    gateway.fault("openai", "status=500+first=1")
    assert told(gateway.chat("assistant", temperature=1)) == (2, "openai", "gpt-6.1-sol")
    gateway.fault("openai", "garbage")
    assert told(gateway.chat("assistant")) == SPARE
    gateway.fault("openai", "reset")
    with gateway.stream("assistant", temperature=1) as streamed:
        assert streamed.headers["x-ai-provider"] == "spare"
        streamed.read()
    assert gateway.seen("spare")[-1]["body"]["temperature"] == 1


def test_failover_does_not_retry_the_clients_errors(start: Start):
    gateway = run(start, "failover.md")
    for status in (400, 404, 422):
        gateway.fault("openai", f"status={status}")
        assert gateway.chat("assistant").status_code == status
    assert gateway.seen("spare") == []


def test_failover_covers_a_wrong_or_missing_key(start: Start):
    gateway = run(start, "failover.md")
    gateway.fault("openai", "status=401")
    assert told(gateway.chat("assistant")) == SPARE
    gateway.fault("spare", "status=401")
    assert refused(gateway.chat("assistant")) == (502, "provider_credential_rejected")
    gateway = run(start, "failover.md", {"OPENAI_API_KEY": ""})
    answer = gateway.chat("assistant")
    assert told(answer) == (1, *SPARE[1:])
    assert gateway.exchange_of(answer)["skipped"] == {"gpt-6.1-sol": "no_key"}
    assert gateway.metric("extproc_targets_skipped_total", reason="no_key") == 1


def test_failover_covers_an_answer_that_does_not_begin_in_time(start: Start):
    gateway = run(start, "failover.md")
    edit(gateway, ("per_try_timeout: 120s", "per_try_timeout: 1s"), ("_stream: 30s", "_stream: 1s"))
    gateway.fault("openai", "hang")
    for stream in (False, True):
        assert told(gateway.chat("assistant", stream=stream)) == SPARE
    eventually(lambda: tries(gateway, provider="openai", outcome="timeout") >= 1)


def test_a_model_that_asked_for_a_pause_cools_down_while_another_is_left(start: Start):
    gateway = run(start, "failover.md")
    before = "  gpt-6.1-sol: {provider: openai}"
    for status in (429, 503, 529):
        model = f"gpt-6.1-sol-{status}"  # the deployment cools down: the model at its provider
        after = f"  gpt-6.1-sol: {{provider: openai, model: {model}}}"
        edit(gateway, (before, after))
        before = after
        gateway.fault("openai", f"status={status}+retry_after=60")
        assert told(gateway.chat("assistant")) == SPARE
        gateway.fault("openai", "")
        eventually(lambda place=f"openai/{model}": "cooling_down_s" in places(gateway).get(place, ()))
        answer = gateway.chat("assistant")
        assert told(answer) == (1, *SPARE[1:])
        assert gateway.exchange_of(answer)["skipped"] == {"gpt-6.1-sol": "cooling_down"}
        assert told(gateway.chat("gpt-6.1-sol")) == (1, "openai", model)
    edit(gateway, (before, "  gpt-6.1-sol: {provider: openai}"))
    gateway.fault("openai", "status=429")
    assert told(gateway.chat("assistant")) == SPARE
    gateway.fault("openai", "")
    eventually(lambda: told(gateway.chat("assistant")) == GPT)  # after `default`


def test_processes_that_share_a_store_share_cool_downs(start: Start, tmp_path: Path):
    one, other = (run(start, "failover.md", more=f"stores: {{counters: 'sqlite:{tmp_path}/c.db'}}\n") for _ in "12")
    assert told(other.chat("assistant")) == GPT
    one.fault("openai", "status=503+retry_after=60")
    assert told(one.chat("assistant")) == SPARE
    eventually(lambda: told(other.chat("assistant")) == (1, *SPARE[1:]))
    assert [seen["body"]["model"] for seen in other.seen("spare")] == ["llama-3.3-70b"]


def test_a_model_that_keeps_failing_cools_down(start: Start):
    gateway = run(start, "failover.md")
    edit(gateway, ("targets: [{model: llama-eu}, ", "targets: [{model: llama-eu}, {model: gpt-6.1-sol}, "))
    gateway.fault("spare", "status=500")
    for _ in range(5):
        assert told(gateway.chat("private")) == (2, "openai", "gpt-6.1-sol")
    eventually(lambda: "cooling_consumers" in places(gateway).get("spare/llama-3.3-70b", ()))
    seen = len(gateway.seen("spare"))
    assert told(gateway.chat("private")) == (1, "openai", "gpt-6.1-sol")
    assert len(gateway.seen("spare")) == seen


def test_a_target_without_the_capability_or_the_match_is_skipped(start: Start):
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
