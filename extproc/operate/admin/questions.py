"""Types of the admin API for requests that wait for an operator, counts that begin anew, and sign-ins that end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from extproc.access.questions import MOST_REASON, CalledTool
from extproc.money.budgets.settings import Unit
from extproc.operate.admin.answers import Amount, Scope, Time, list_of


class Reset(Struct, forbid_unknown_fields=True):
    """Body of `POST /budgets/{name}/reset`."""

    scope: Scope


class ResetCount(Struct, kw_only=True):
    budget: str
    scope: str
    settled: Annotated[Amount, Meta(description="What was counted before")]


class SignIn(Struct, forbid_unknown_fields=True):
    """Body and answer of `POST /sign-ins/end`."""

    server: Annotated[str, Meta(description="MCP server with `auth.sign_in`")]
    consumer: str
    issuer: Annotated[
        str, Meta(description="`subject_issuer` of the user's calls; empty if the consumer is the user")
    ] = ""
    subject: Annotated[str, Meta(description="`subject` of the user's calls; empty if the consumer is the user")] = ""


class Question(Struct, kw_only=True):
    """A question about a request without room in a budget with `on_exceed: ask`, or about a call of a tool with
    `approve`.
    """

    id: str
    budget: Annotated[str, Meta(description="Empty for a call of a tool")]
    scope: str
    fields: Mapping[str, str]
    unit: Unit
    amount: Annotated[Amount, Meta(description="The most that the request can use")]
    consumer: str
    team: str
    key: str
    labels: Mapping[str, str]
    operation: str
    model: Annotated[str, Meta(description="The model; the client's name of a tool")]
    call: Annotated[CalledTool | None, Meta(description="The call of a tool, as it will be sent")]
    state: Annotated[
        Literal["open", "denied", "approved", "used"], Meta(description="used: approved, and the request went on")
    ]
    asked_at: Time
    expires_at: Annotated[Time, Meta(description="Until then it can be answered, or the approval used")]
    decided_by: Annotated[str, Meta(description="The operator who answered; else empty")]
    reason: str


Questions = list_of("Questions", Question)


class Decision(Struct, forbid_unknown_fields=True):
    """Body of `POST /questions/{id}`."""

    decision: Literal["approve", "deny"]
    reason: Annotated[str, Meta(max_length=MOST_REASON, description="For the client, where it is denied")] = ""
