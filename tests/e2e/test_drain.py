"""The drain as load balancers see it: /readyz is 503 from the signal to the end, while requests are still served."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.conftest import Gateway, eventually

SETTINGS = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
stores: {counters: "sqlite:DIR/counters.db", ledger: "sqlite:DIR/ledger.db"}
"""
Start = Callable[..., Gateway]


class Probes:
    """Answers of /readyz to a load balancer, ten times a second: status and text, or None for no answer."""

    def __init__(self, gateway: Gateway) -> None:
        self._url, self._ended = gateway.status + "/readyz", threading.Event()
        self.found: list[tuple[int, str] | None] = []
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            try:
                answer = httpx.get(self._url, timeout=5, trust_env=False)
                self.found.append((answer.status_code, answer.text.splitlines()[0]))
            except httpx.HTTPError:
                self.found.append(None)

    def end(self) -> list[tuple[int, str] | None]:
        self._ended.set()
        self._thread.join()
        return self.found


def check(found: list[tuple[int, str] | None]) -> None:
    """Ready, then draining for as long as there are answers, then none."""
    kinds = [each for number, each in enumerate(found) if number == 0 or each != found[number - 1]]
    assert kinds == [(200, "ok"), (503, "draining"), None]
    assert found.count((503, "draining")) > 10


@pytest.mark.parametrize("workers", [1, 2])
def test_up_is_unready_through_the_whole_drain(start: Start, tmp_path, workers: int):
    more = f"processor: {{workers: {workers}}}\n"
    gateway = start(SETTINGS.replace("DIR", str(tmp_path)) + more, up=True)
    gateway.fault("sandbox", "words=60+pace=50ms")
    with gateway.stream() as slow:
        pieces = slow.iter_raw()
        next(pieces)
        probes = Probes(gateway)
        eventually(lambda: probes.found)
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: (503, "draining") in probes.found)
        gateway.fault("sandbox", "")
        assert gateway.chat().status_code == 200, "a balancer that has not noticed yet sends requests"
        assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
    assert gateway.process.wait(20) == 0
    eventually(lambda: None in probes.found)
    check(probes.end())
