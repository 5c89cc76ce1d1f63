"""`extproc doctor` of a real gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.conftest import DEMO_KEYS, KEY, Ended, Gateway, eventually

Start = Callable[..., Gateway]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"EXTPROC_DEMO_KEY": KEY, **DEMO_KEYS}.items():
        monkeypatch.setenv(name, value)


def test_a_healthy_gateway_has_nothing_wrong(demo: Gateway, extproc: Callable[..., Ended]):
    done = extproc("doctor", "-c", demo.file, "--key", "env:EXTPROC_DEMO_KEY")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for part in ("no key: status 401", "an unknown key: status 401", "the given key: status 200", "clock"):
        assert part in done.stdout
    assert "\n-- " not in done.stdout


def test_a_real_envoy_tells_its_version(start: Start, extproc: Callable[..., Ended]):
    gateway = start(
        "providers: {sandbox: {kind: mock, base_url: '{mock_sandbox}'}}\nmodels: {stub: {provider: sandbox}}", up=True
    )

    def runtime() -> str | None:
        """The directory of the sockets, when `up` has become its supervisor."""
        words = Path(f"/proc/{gateway.process.pid}/cmdline").read_text().split("\0")
        plans = (json.loads(after) for word, after in pairwise(words) if word.endswith("_supervise.py"))
        return next((plan["directory"] for plan in plans), None)

    done = extproc("doctor", "-c", gateway.file, "--envoy-admin", Path(eventually(runtime)) / "envoy-admin.sock")
    assert "ok    envoy      Envoy is 1." in done.stdout


def test_an_address_that_bypasses_the_gateway_is_found(demo: Gateway, extproc: Callable[..., Ended]):
    done = extproc("doctor", "-c", demo.file, "--listener", demo.mocks["sandbox"])
    assert done.returncode == 1
    assert "no key: status 200" in done.stdout
    assert "bypasses the gateway" in done.stdout
