"""Which streamed answers may pass unread, and the stage that asks Envoy to follow them."""

from __future__ import annotations

from collections.abc import Callable, Container

from extproc.exchange.unread.waiting import Waiting
from extproc.words import contract
from extproc.words.exchange import Exchange


class WhyRead:
    """The reason, for people, why the answer to a request has to be read; empty where it may pass unread.

    `reason` is that of the stages of events. `patient` are the providers whose `timeout` is longer than
    `limits.stream_idle`.
    """

    def __init__(
        self,
        mode: str,
        reason: Callable[[Exchange], str],
        patient: Container[str] = (),
    ) -> None:
        self.enabled = mode == "log"
        self._reason = reason
        self._patient = patient

    def __call__(self, exchange: Exchange) -> str:
        if not self.enabled:
            return "usage.mode is body"
        if not exchange.request.ask.stream:
            return "it is plain"
        if exchange.attached:
            return "attach mode has no internal listener to follow it"
        if exchange.route.translated and not any(target.adaptation.own for target in exchange.route.targets):
            return "it is translated"
        if any(target.provider in self._patient for target in exchange.route.targets):
            return "Envoy would bear its silence for the provider's timeout, longer than limits.stream_idle"
        return self._reason(exchange)


class Follow:
    """Asks Envoy to follow an answer that may pass unread."""

    def __init__(self, waiting: Waiting, why_read: WhyRead) -> None:
        self._waiting = waiting
        self._why_read = why_read

    def __call__(self, exchange: Exchange) -> None:
        if not self._why_read(exchange):
            onward = exchange.route.onward
            onward.set_headers = {**onward.set_headers, contract.WATCH: "1"}
            self._waiting.expect(exchange.id)
