"""Findings, the protocol of detectors, and the settings that all guardrails have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from extproc.words.exchange import Exchange
from extproc.words.values import Duration, Name, PositiveDuration, SecretRef, Section, Size, WebhookURL

TOOL_NAME, TOOL_CALL, DEFINITION = "tool_name", "tool_call", "definition"
"""Roles of text that is not a message: the name of a tool that the model calls, the arguments of the call, and the
definition of a tool that a request or an MCP server offers.
"""

ROLES = ("user", "assistant", "system", "tool_results", "tool_descriptions", "documents")
"""Roles of texts, as the settings name them."""
TOOL_ROLES = ("tool", "function")
"""Roles of messages with tool results."""

Action = Literal["block", "mask", "annotate", "audit"]
ACTIONS = ("block", "ask", "mask", "annotate", "audit")
"""Actions, the strongest first. `ask` is for calls in answers alone, see `_held.py`."""

On = Literal["input", "output", "tool_calls", "tool_results", "tool_arguments", "tool_descriptions"]


@dataclass(slots=True, frozen=True)
class Finding:
    """A match of a guardrail: `kind` for people, `span` in the text, `score` from 0 to 1."""

    kind: str
    span: tuple[int, int]
    score: float = 1.0


@dataclass(slots=True, frozen=True)
class Ruling(Finding):
    """A finding of a service that also decides. `replacement` replaces the span if it is masked. `blocks`: the text is
    refused even if the action is `mask`. `message` is for the client.
    """

    replacement: str | None = None
    blocks: bool = False
    message: str = ""


@dataclass(slots=True, frozen=True)
class Whole:
    """A complete text of an answer, as it was written: the answer itself, or the arguments of a call of `tool`."""

    text: str
    role: str
    where: str
    tool: str = ""  # empty: the provider gave no name
    json: bool = False  # True: the API says that these arguments are JSON


@dataclass(slots=True, frozen=True)
class Excess:
    """An exceeded limit of a request: the `kind` of limit, and the place in the body."""

    kind: str
    where: str
    message: str


LONGEST = 256
"""The default of `Detector.max_match`, in characters."""


class Guardrail:
    """A guardrail that works in this process, as `build` makes it: a Detector, a Judge or both, or a Measure."""

    def for_exchange(self, exchange: Exchange) -> Guardrail | None:  # noqa: ARG002
        """The guardrail for one exchange, if it depends on the request; None if it has nothing to find in that
        exchange. Called when the request is read.
        """
        return self


class Detector(Guardrail):
    """Finds matches in text.

    max_match  characters of its longest match, with the context that decides it. Streamed text is held back that far
               from its end, and scanned again with that much overlap. A longer match is masked as far as it is seen.
    window     characters, for a detector that judges a text as a whole and whose spans may be the whole text (topics,
               toxicity); otherwise 0. It gets windows of that length that overlap by half; text waits for its window.
    """

    roles: frozenset[str] = frozenset()
    """Roles of the request's texts that the detector reads; empty for all roles."""
    max_match: int = LONGEST
    window: int = 0
    patterns: Sequence[str] = ()
    """RE2 patterns, at least one of which matches wherever the detector finds something; empty if it has no such
    patterns.
    """
    cost: float = 0.7
    """Microseconds of CPU for each character of a text that is hard to search."""

    def find(self, text: str, role: str, where: str) -> Iterable[Finding]:
        """All findings in `text`. Pure; may run on any thread. An iterator is abandoned when it gives too many
        findings, or takes too long.
        """
        raise NotImplementedError

    def skips(self, text: str, role: str) -> str:  # noqa: ARG002
        """The reason why the detector cannot judge a text, such as `language`; empty if it can."""
        return ""

    def hold(self, text: str) -> int:  # noqa: ARG002
        """Characters at the end of `text` that may be the beginning of a match. The promise: a match in `text + more`
        that begins before these characters is in `find(text)` already, with the same span. Override this where most
        text need not wait: a detector of e-mail addresses holds the last word.
        """
        return self.max_match + 1


class Judge(Guardrail):
    """Judges complete texts of an answer."""

    heavy: bool = False
    """True if `judge` may take milliseconds for a short text; then it runs on a thread."""

    def reads(self, role: str, tool: str, answer: bool) -> bool:
        """True for texts that are judged once they are complete. `answer`: the text is the answer itself. An enforcing
        guardrail holds such a text back until it is complete.
        """
        raise NotImplementedError

    def judge(self, whole: Whole) -> Sequence[str]:
        """The kinds of all findings in a complete text, the worst first. Called at most once for each text."""
        raise NotImplementedError

    def rules(self, tool: str) -> Mapping[str, str]:  # noqa: ARG002
        """The rules for calls of a tool in words, by the kinds of their findings; an empty name stands for any tool."""
        return {}


class Withholds(Guardrail):
    """Removes tools from requests, if its action is block."""

    def withheld(self, tool: str) -> bool:
        """True for a tool that the request must not offer."""
        raise NotImplementedError


class Measure(Guardrail):
    """Measures requests, for limits on sizes and numbers."""

    def measure(self, exchange: Exchange) -> Sequence[Excess]:
        """The limits that the request exceeds."""
        raise NotImplementedError


_Names = Annotated[Sequence[str], Field(max_length=1000)]


class ConditionsSettings(Section):
    """Conditions on a request, all of which must hold."""

    consumers: _Names | None = Field(
        None,
        description="Patterns of consumers' names, with `*` for any characters. Default: all. `[]`: none, so that only "
        "requests meet the guardrail that name it in the header `x-ai-guardrails`.",
    )
    teams: _Names | None = Field(None, description="Patterns of the consumers' teams. Default: all.")
    keys: _Names | None = Field(
        None,
        description="Patterns of keys, as the ledger names them: `CONSUMER#KEY`, with `token` or `certificate` for a "
        "consumer without a key. Default: all.",
    )
    models: _Names | None = Field(
        None,
        description="Patterns of models. A request is meant where the model it names, or one it may be sent to, "
        "matches; any request may be sent to the models that budgets downgrade to. Default: all.",
    )
    paths: _Names | None = Field(
        None, description="Patterns of the paths that clients call, such as `/v1/embeddings`. Default: all."
    )
    labels: Annotated[Mapping[str, str], Field(max_length=16)] = Field(
        default_factory=dict, description="Labels that the request must have, each with a pattern of its value."
    )


class AppliesToSettings(ConditionsSettings):
    """The requests that a guardrail checks: those that meet all conditions given here."""

    exceptions: Annotated[Sequence[ConditionsSettings], Field(max_length=100)] = Field(
        (),
        alias="except",
        description="Requests that do not meet the guardrail although they meet the conditions beside it: those that "
        "meet all conditions of one entry.",
    )

    @model_validator(mode="after")
    def _excepts_something(self) -> AppliesToSettings:
        if any(one == ConditionsSettings() for one in self.exceptions):
            raise ValueError("except: an entry without a condition would switch the guardrail off")
        return self


class GuardrailSettings(Section):
    """A guardrail: a check of the text in requests and answers."""

    name: Name = Field(description="Name of the guardrail in messages, metrics and the ledger.")
    kind: str = Field(description="Kind of the guardrail.")
    on: Sequence[On] = Field(
        ("input",),
        min_length=1,
        max_length=6,
        description="Text that is checked. `input`: all text of the request. `output`: all text of the answer. "
        "`tool_results`: results of tools in the request alone, and those of calls through the MCP gateway. "
        "`tool_calls`: arguments of tool calls in the answer alone. `tool_arguments`: arguments of calls through the "
        "MCP gateway. `tool_descriptions`: definitions of its tools; one with a finding is hidden.",
    )
    action: Action = Field(
        "block",
        description="Effect of a finding. `block`: the request or the answer is refused with 400 `guardrail_blocked`; "
        "an answer that has begun ends with an error event. `mask`: the finding is replaced, see `style`. `annotate`: "
        "the finding is recorded, and told in the header `x-ai-guardrails` of the answer. `audit`: the finding is "
        "recorded. Start a new guardrail with `audit`.",
    )
    actions: Annotated[Mapping[str, Action], Field(max_length=256)] = Field(
        default_factory=dict,
        description="Actions for findings of some kinds, in place of `action`: `{card: block, email: mask}`. Only for "
        "guardrails that ask no service.",
    )
    failure: Literal["closed", "open"] = Field(
        "closed",
        description="Effect of a failure of the guardrail: a timeout, an error, text it cannot read. `closed`: the "
        "request or the answer is refused where `action` is `block` or `mask`. `open`: it passes unchecked.",
    )
    unsearched: Literal["pass", "refuse"] = Field(
        "pass",
        description="Effect of a part of the request that cannot be searched, where `on` has `input` and `action` is "
        "`block` or `mask`: an image, sound, a PDF or packed file, content behind an id or an address. `pass`: it is "
        "sent, recorded as `unsearched`, and told in the header `x-ai-guardrails`. `refuse`: the request is refused "
        "with 400 `guardrail_blocked`.",
    )
    timeout: PositiveDuration = Field(
        5.0, le=9, description="Time limit for checking one request, or one piece of an answer. At most 9s."
    )
    applies_to: AppliesToSettings = Field(
        AppliesToSettings(), description="Requests that meet the guardrail. Default: all."
    )
    max_findings: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Most findings in one text, 1 to 1000000. Further ones are not looked for. Where `action` is "
        "`mask`, a text with more is a failure of the guardrail, reason `too_many`, because a mask needs all of them.",
    )
    style: Literal["label", "hash", "partial", "reversible"] = Field(
        "label",
        description="Replacement of a masked finding. `label`: `[EMAIL]`. `hash`: `[EMAIL:1f3a5b7c9d]`, the same for "
        "the same text. `partial`: the label and the last characters, `[CARD:1111]`. `reversible`: `<EMAIL_1>`, which "
        "becomes the original text again in the answer; only for `on: [input]` and `tool_results`.",
    )
    hash_key: SecretRef | None = Field(
        None,
        description="Key of the hashes of `style: hash`, and of those of found texts in the audit trail. Without it "
        "each process makes a key at random, so hashes differ between processes and restarts.",
    )

    @model_validator(mode="after")
    def _style_fits(self) -> GuardrailSettings:
        if self.style != "label" and "mask" not in (self.action, *self.actions.values()):
            raise ValueError("style: only for action: mask")
        if self.style == "reversible" and {"output", "tool_calls", "tool_arguments"} & {*self.on}:
            raise ValueError("style: reversible is for the request: `on` may be input and tool_results")
        return self

    def build(self) -> Guardrail:
        raise NotImplementedError


class IdleSettings(GuardrailSettings):
    """Stands in for another guardrail, and finds nothing."""

    def build(self) -> Guardrail:
        return Guardrail()


class ApprovalSettings(Section):
    """Questions to people about calls in answers, for `action: ask`."""

    wait: Duration = Field(
        120.0,
        le=600,
        description="Longest time that an answer waits for a decision, at most `10m`. Keep it below the clients' "
        "time-outs. `0s`: not at all.",
    )
    expires: PositiveDuration = Field(
        3600.0,
        ge=60,
        le=43200,
        description="Time in which a question can be answered, and then the approval be used, `1m` to `12h`.",
    )
    webhook: WebhookURL | None = Field(
        None, description="URL that gets a POST for each question, without the arguments."
    )
    max_arguments: Size = Field(
        4 << 10,
        ge=256,
        le=16 << 10,
        description="Most bytes of arguments that people are asked about, `256B` to `16KiB`. Larger calls are refused.",
    )


class UnmaskableSettings(GuardrailSettings):
    """A guardrail that judges a whole: there is nothing that a mask could replace."""

    action: Literal["block", "annotate", "audit"] = Field(
        "block",
        description="Effect of a finding. `block`: the request or the answer is refused. `annotate`: recorded, and "
        "told in the header `x-ai-guardrails` of an answer whose head has not left. `audit`: recorded.",
    )


class AskingSettings(UnmaskableSettings):
    """A guardrail over calls of tools, which can let a person decide."""

    action: Literal["block", "ask", "annotate", "audit"] = Field(  # type: ignore[assignment]
        "block",
        description="Effect of a finding. `block`: the answer is refused. `ask`: calls in an answer are held back "
        "until a person approves those with a finding, see `approval`. `annotate`: recorded, and told in the header "
        "`x-ai-guardrails` of an answer whose head has not left. `audit`: recorded.",
    )
    approval: ApprovalSettings = Field(ApprovalSettings(), description="Questions to people, for `action: ask`.")

    @model_validator(mode="after")
    def _asks_about_answers(self) -> AskingSettings:
        if self.action == "ask" and [*self.on] != ["tool_calls"]:
            raise ValueError("action: ask is for on: [tool_calls]; for calls by MCP give mcp.tools.*.approve")
        return self
