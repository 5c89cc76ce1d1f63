"""Calls of tools that wait for a person: `approve` in `mcp.tools`.

    AwaitApproval   a question about the call (access/questions) · the call waits · denied, or pending: refused
    UseApproval     the call once more, as it is now: settings, definition, taint · the approval is used up

An approval is for one call as it will be sent: profile, server, tool, definition, policy, parameters, consumer, run,
and whether the run is tainted. All of these are in the fingerprint of the question. So a call that differs in one of
them asks anew, and the same call, sent again to any replica, finds its question. After a wait the fingerprint is
computed again. An approval is used up before the call leaves: if its process dies then, a person is asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from extproc.access.questions import (
    APPROVAL,
    CalledTool,
    DecidedError,
    Question,
    Questions,
    State,
    TooManyQuestionsError,
    fingerprint,
    question_about,
)
from extproc.stores import StoreError
from extproc.tools.mcp.call import CALL, TOOLS_CALL, Call, canonical
from extproc.tools.mcp.profiles import Profiles
from extproc.tools.mcp.refusals import AskUser, asking, elicits, take_answer
from extproc.tools.mcp.settings import MCPSettings
from extproc.words.errors import APPROVAL_DENIED, APPROVAL_REQUIRED, STORE_UNAVAILABLE, Refusal
from extproc.words.exchange import Exchange
from extproc.words.runs import named_by
from extproc.words.values import show_size

SCOPE = "!call"  # no name of a budget begins so
BY_USER = "user"
"""Name of the client's user, as the one who decided."""
_KEY, _STATE = "approval", "llm-extproc/approval:"
"""Name of the question to the client's user, and the beginning of the state that brings its id back."""
_AGAIN = "10"  # seconds after which a client may ask again
_Said = tuple[str, Mapping[str, Any]]
"""Answer of a client's user: the id of the question, and the result of the elicitation; empty without one."""
Count = Callable[[str, str], None]
"""Called with a server and an outcome: asked, approved, denied, pending, changed."""


class AwaitApproval:
    """Refuses a call that needs the approval of a person and has none yet. Writes `call.approval`."""

    def __init__(self, settings: MCPSettings, profiles: Profiles, questions: Questions | None, count: Count) -> None:
        self._settings = settings.approvals
        self._profiles = profiles
        self._questions = questions
        self._count = count

    async def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        if exchange.request.operation != TOOLS_CALL or call.policy is None or call.policy.approve is None:
            return
        if not (reason := call.policy.approval_reason(_arguments(exchange), tainted=bool(exchange.findings.tainted))):
            return
        said = take_answer(exchange, _STATE, _KEY) if self._elicits(call) else ("", {})
        draft, most = draft_of(exchange, self._profiles), self._settings.max_arguments
        assert draft.call is not None
        if len(draft.call.arguments.encode()) > most:
            message = f"Tool {call.name!r} needs a person's approval, and nobody is asked about arguments of more than "
            raise Refusal(APPROVAL_DENIED, f"{message}{show_size(most)}: send less.")
        try:
            await self._decided(exchange, draft, reason, said)
        except StoreError:
            message = f"Tool {call.name!r} needs a person's approval, which cannot be asked for now: try again later."
            raise Refusal(STORE_UNAVAILABLE, message) from None

    def _elicits(self, call: Call) -> bool:
        return self._settings.elicit and call.modern and elicits(call, "form")

    async def _decided(self, exchange: Exchange, draft: Question, reason: str, said: _Said) -> None:
        """Returns for an approved call. Raises Refusal, StoreError."""
        assert self._questions is not None, "the processor has it"
        call = exchange.features[CALL]
        settings, ends = self._settings, time.monotonic() + self._settings.wait
        try:
            question, state = await self._questions.ask(draft, lambda now: now + settings.expires, settings.webhook)
        except TooManyQuestionsError:
            message = f"Tool {call.name!r} needs a person's approval, and too many questions are open: try again later."
            raise Refusal(APPROVAL_REQUIRED, message) from None
        call.approval = question  # for the log, also of a call that is refused
        if state is State.OPEN:
            self._count(call.server, "asked" if question.id == draft.id else "pending")
            if self._elicits(call):
                if said[0] != question.id:
                    raise AskUser(APPROVAL_REQUIRED, "The user is asked.", _asking(question))
                await self._take(question, said[1])
                ends = 0.0
            state = await self._questions.wait(exchange, question, ends) or State.OPEN
        if state is State.DENIED:
            self._count(call.server, "denied")
            call.approval = known = await self._questions.find(question.id) or question
            why = f": {known.reason}" if known.reason else ""
            message = f"A person denied this call of {call.name!r} (approval {question.id}){why}"
            raise Refusal(APPROVAL_DENIED, message.rstrip(".") + ".", headers={APPROVAL: question.id})
        if state is not State.APPROVED:
            raise _pending(call, question, f"needs a person's approval, because {reason}")

    async def _take(self, question: Question, said: Mapping[str, Any]) -> None:
        """Take the answer of the client's user for the decision, unless an operator came first."""
        content, accepted = said.get("content"), said.get("action") == "accept"
        approve = accepted and isinstance(content, dict) and content.get("approve") is True
        if (approve or accepted or said.get("action") == "decline") and self._questions is not None:
            with contextlib.suppress(DecidedError):
                reason = "" if approve else "the user said no"
                await self._questions.decide(question.id, approve=approve, by=BY_USER, reason=reason)


class UseApproval:
    """Uses up the approval of a call, if the call is still the one that was approved. `in_force` gives the settings in
    force; `judge` refuses calls that policy refuses now.
    """

    def __init__(
        self,
        settings: MCPSettings,
        profiles: Profiles,
        questions: Questions | None,
        *,
        in_force: Callable[[], MCPSettings],
        judge: Callable[[Exchange], None],
        count: Count,
    ) -> None:
        self._settings = settings
        self._profiles = profiles
        self._questions = questions
        self._in_force = in_force
        self._judge = judge
        self._count = count

    async def __call__(self, exchange: Exchange) -> None:
        call = exchange.features[CALL]
        if (question := call.approval) is None:
            return
        assert self._questions is not None, "the processor has it"
        self._check(exchange, call, question)
        try:
            used = await self._questions.use(question)
        except StoreError:
            message = f"The approval of {call.name!r} cannot be checked now: try again later."
            raise Refusal(STORE_UNAVAILABLE, message) from None
        if used is None:
            raise _pending(call, question, "has no approval any more: another call has used it, or its time is over")
        self._check(exchange, call, question)  # once more, after the store has answered
        self._count(call.server, "approved")
        call.approval = used

    def _check(self, exchange: Exchange, call: Call, question: Question) -> None:
        """Raises Refusal if the call as it would be sent now is not the one that was asked about."""
        if not self._is_same(exchange, call, question):
            self._count(call.server, "changed")
            raise _pending(call, question, "was changed while it waited: its definition, its policy or its run")

    def _is_same(self, exchange: Exchange, call: Call, question: Question) -> bool:
        if self._in_force() is not self._settings:
            return False
        found = self._profiles.find(call, exchange.consumer.tools)
        if found is None or found.server != call.server or found.name != call.tool:
            return False
        call.entry = found.entry
        self._judge(exchange)
        return draft_of(exchange, self._profiles).request == question.request


def draft_of(exchange: Exchange, profiles: Profiles) -> Question:
    """The question about a call, not asked yet."""
    call, tool, consumer = exchange.features[CALL], f"{SCOPE}:tools/call", exchange.consumer.name
    assert call.policy is not None
    definition = "" if call.entry is None else profiles.policy.digest(call.entry)
    run, arguments = named_by(exchange.money.labels), canonical(_arguments(exchange))
    headers = sorted(each for each in exchange.request.head.headers.items() if each[0].startswith("mcp-param-"))
    params = {name: value for name, value in exchange.request.json["params"].items() if name not in ("_meta", "name")}
    facts = (call.profile, call.server, call.tool, definition, consumer, run, call.policy.model_dump_json())
    known = (tool, *facts, str(bool(exchange.findings.tainted)), *(f"{name}:{value}" for name, value in headers))
    called = CalledTool(
        *(call.profile, call.server, call.tool, definition),
        *(arguments.decode(), hashlib.sha256(arguments).hexdigest(), run),
    )
    return question_about(exchange, fingerprint(*known, body=canonical(params)), SCOPE, call=called)


def _asking(question: Question) -> dict[str, Any]:
    """The result that asks the client's user."""
    called = question.call
    assert called is not None
    message = f"Approve the call of {called.server}/{called.tool} with the arguments {called.arguments}?"
    field = {"approve": {"type": "boolean", "title": "Approve"}}
    schema = {"type": "object", "properties": field, "required": [*field]}
    return asking(_KEY, {"mode": "form", "message": message, "requestedSchema": schema}, _STATE + question.id)


def _arguments(exchange: Exchange) -> object:
    """The arguments as they will be sent: guardrails may have masked them."""
    return exchange.request.json["params"].get("arguments", {})


def _pending(call: Call, question: Question, state: str) -> Refusal:
    """The refusal of a call that may be sent again."""
    message = (
        f"The call of {call.name!r} {state}. Send the same call again, with the same arguments, once a person has "
    )
    message += f"approved it (approval {question.id})."
    return Refusal(APPROVAL_REQUIRED, message, headers={APPROVAL: question.id, "retry-after": _AGAIN})
