"""docs/kill-switch.md, with its own settings and commands."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import KEY, Gateway, eventually
from tests.e2e.pages import (
    GPT,
    Start,
    edit,
    refused,
    run,
    settings,
    shell,
    told,
)


def test_the_commands_of_the_kill_switch_work(start: Start):
    gateway = run(start, "kill-switch.md")
    assert told(gateway.chat("assistant")) == GPT
    output = shell(gateway, "kill-switch.md")
    assert "gateway.yaml: ok\n" in output
    assert "x-ai-model: gpt-6-luna\nx-ai-attempts: 1\n" in "".join(
        f"{line}\n" for line in output.splitlines() if line.startswith(("x-ai-model", "x-ai-attempts"))
    )
    assert gateway.last(lambda entry: entry.get("skipped"))["skipped"] == {"gpt-6.1-sol": "disabled"}
    assert gateway.metric("extproc_targets_skipped_total", reason="disabled") == 1
    assert gateway.metric("extproc_reloads_total", outcome="taken") == 1
    assert refused(gateway.chat("gpt-6.1-sol")) == (503, "no_provider_available")


def listed(gateway: Gateway) -> set[str]:
    answer = gateway.http.get(gateway.base_url + "/models", headers={"authorization": f"Bearer {KEY}"})
    return {entry["id"] for entry in answer.json()["data"]}


def test_every_kill_switch_of_the_page_works(start: Start):
    gateway = run(start, "kill-switch.md")
    provider, target = (
        'base_url: "{}", api_key: env:OPENAI_API_KEY, disabled: {}',
        "- {{model: gpt-6.1-sol, disabled: {}}}",
    )
    url = gateway.mocks["openai"] + "/v1"
    on, off = "false", "true"

    edit(gateway, (target.format(on), target.format(off)))
    assert told(gateway.chat("assistant")) == (1, "openai", "gpt-6-luna")
    assert told(gateway.chat("gpt-6.1-sol")) == GPT
    edit(gateway, (target.format(off), target.format(on)))
    assert told(gateway.chat("assistant")) == GPT

    edit(gateway, (provider.format(url, on), provider.format(url, off)))
    assert told(gateway.chat("assistant")) == (1, "local", "meta-llama/Llama-3.3-70B-Instruct")
    assert refused(gateway.chat("gpt-6-luna")) == (503, "no_provider_available")
    assert listed(gateway) == {"assistant", "llama"}
    edit(gateway, (provider.format(url, off), provider.format(url, on)))
    assert told(gateway.chat("assistant")) == GPT

    who = "keys: [{{env: EXTPROC_DEMO_KEY}}], disabled: {}"
    edit(gateway, (who.format(on), who.format(off)))
    assert refused(gateway.chat("assistant")) == (401, "invalid_key")
    assert told(gateway.chat("assistant", key="sk-gw-agent")) == GPT


def test_running_requests_finish_and_an_invalid_file_changes_nothing(start: Start):
    gateway = run(start, "kill-switch.md")
    gateway.fault("openai", "words=60+pace=50ms")
    with gateway.stream("assistant") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        edit(gateway, ("- {model: gpt-6.1-sol, disabled: false}", "- {model: gpt-6.1-sol, disabled: true}"))
        assert b"[DONE]" in b"".join(pieces)
    good = gateway.file.read_text()
    for mistake in (
        ("gpt-6-luna:  {provider: openai}", "gpt-6-luna:  {provider: nobody}"),
        ("{kind: mock, ", "{timeout: nine, kind: mock, "),
    ):
        before = gateway.metric("extproc_reloads_total", outcome="refused")
        gateway.file.write_text(
            good.replace(*mistake, 1).replace("gpt-6.1-sol, disabled: true", "gpt-6.1-sol, disabled: false")
        )
        eventually(lambda: gateway.metric("extproc_reloads_total", outcome="refused") > before)  # noqa: B023
        gateway.reset()
        assert told(gateway.chat("assistant")) == (1, "openai", "gpt-6-luna")


def test_a_provider_that_was_disabled_at_the_start_can_be_enabled(start: Start, monkeypatch: pytest.MonkeyPatch):
    text = settings("kill-switch.md").replace(
        "env:OPENAI_API_KEY, disabled: false", "env:OPENAI_API_KEY, disabled: true"
    )
    monkeypatch.setattr("tests.e2e.pages.settings", lambda _page: text)
    gateway = run(start, "kill-switch.md")
    assert told(gateway.chat("assistant"))[:2] == (1, "local")
    edit(gateway, ("env:OPENAI_API_KEY, disabled: true", "env:OPENAI_API_KEY, disabled: false"))
    assert told(gateway.chat("assistant")) == GPT
