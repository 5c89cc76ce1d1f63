"""Sensitive tools after the results of untrusted ones: text from outside must not decide what they do.

The conversation tells which tools gave results, so no session is kept. After a result of an untrusted tool the
sensitive ones disappear from the request, and an answer that calls one of them is refused. Untrusted tools that
answered by MCP in the same run count, too (`taint`).

Controls: OWASP LLM01:2026, LLM03:2026 (excessive agency); MITRE ATLAS T0051, T0053, T0086; FINOS AIGF ri-24 / mi-18.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from extproc.guardrails import TOOL_NAME, Detector, Finding, Withholds
from extproc.guardrails._base import AskingSettings
from extproc.guardrails._normal import normalised
from extproc.words.values import Patterns

if TYPE_CHECKING:
    from extproc.words.exchange import Exchange

_Patterns = Annotated[Sequence[str], Field(max_length=1000)]


class UntrustedContextSettings(AskingSettings):
    """A guardrail that keeps sensitive tools from conversations with results of untrusted ones."""

    kind: Literal["untrusted_context"] = Field(
        description="Kind of the guardrail. `untrusted_context`: no sensitive tools after results of untrusted ones. "
        "`block` also takes sensitive tools out of the request."
    )
    on: Sequence[Literal["tool_calls"]] = Field(
        ("tool_calls",), min_length=1, max_length=1, description="Text that is checked: `tool_calls`."
    )
    sensitive: Annotated[Sequence[str], Field(min_length=1, max_length=1000)] = Field(
        description="Patterns of the tools that must not be called then, with `*` for any characters."
    )
    untrusted: _Patterns = Field(
        ("*",), description="Patterns of the tools whose results come from outside. Default: every tool."
    )
    trusted: _Patterns = Field(
        (),
        description="Patterns of tools whose results can be trusted. They win over `untrusted`. Results of a tool "
        "without a name, and conversations that the provider keeps, are never trusted.",
    )

    def build(self) -> UntrustedContext:
        return UntrustedContext(self)


class UntrustedContext(Detector, Withholds):
    """Finds calls of sensitive tools, in an exchange whose conversation has untrusted results."""

    def __init__(self, settings: UntrustedContextSettings) -> None:
        self._sensitive = Patterns(settings.sensitive)
        self._untrusted = Patterns(settings.untrusted)
        self._trusted = Patterns(settings.trusted)

    def for_exchange(self, exchange: Exchange) -> UntrustedContext | None:
        """The guardrail, or None if every result can be trusted. Tools that the provider runs give results within the
        answer.
        """
        results = [
            *exchange.request.dialect.offers.tools.tooling(exchange.request.json).results,
            *exchange.request.ask.hosted,
        ]
        found = [name for name in dict.fromkeys(results) if not self._may_trust(name)]
        found += exchange.findings.tainted
        if not found:
            return None
        exchange.findings.untrusted = tuple(dict.fromkeys((*exchange.findings.untrusted, *found)))
        return self

    def withheld(self, tool: str) -> bool:
        """True for a tool that such a request must not offer."""
        return self._sensitive(tool) or self._sensitive(normalised(tool))

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        return [Finding("sensitive_tool", (0, len(text)))] if role == TOOL_NAME and self.withheld(text) else ()

    def hold(self, text: str) -> int:  # noqa: ARG002
        return 0

    def _may_trust(self, tool: str) -> bool:
        if not tool:
            return False
        return self._trusted(tool) or not self._untrusted(tool)


SETTINGS = UntrustedContextSettings
