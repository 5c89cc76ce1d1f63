"""The handlers of the admin API's operations. They run on threads, and may block."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from extproc.money.ledger.focus import cell
from extproc.operate.admin import answers, questions
from extproc.operate.admin.guard import JSON
from extproc.operate.admin.handling import AdminCall, given, readable
from extproc.operate.reports import ReportError

if TYPE_CHECKING:
    from extproc.operate.admin.signon import SignOn

_NUMBERS = answers.Numbers.__struct_fields__


# --- reports


def usage(call: AdminCall) -> Any:
    parameters = call.parameters()
    formats = [value for name, value in parameters if name == "format"]
    if len(formats) > 1 or not set(formats) <= {"json", "csv"}:
        raise ReportError(400, "format must be json or csv")
    wanted = formats[0] if formats else "csv" if "text/csv" in call.request.headers.get("accept", "") else "json"
    with readable():
        report = call.reports.usage([(name, value) for name, value in parameters if name != "format"])
    if wanted == "json":
        return report
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    content = as_csv(report).encode(errors="backslashreplace")
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


def as_csv(report: Mapping[str, Any]) -> str:
    """The rows of a usage report. Cells that a spreadsheet would take for a formula begin with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    fields: Sequence[str] = report["group_by"]
    writer.writerow([cell(name) for name in ("start", "end", *fields, *_NUMBERS)])
    for row in report["data"]:
        group = [row["group"].get(name) for name in fields]
        writer.writerow([cell(value) for value in (row["start"], row["end"], *group, *(row[n] for n in _NUMBERS))])
    return out.getvalue()


def latency(call: AdminCall) -> Any:
    with readable():
        return call.reports.latency(call.parameters())


def findings(call: AdminCall) -> Any:
    with readable():
        return call.reports.findings(call.parameters())


def exchanges(call: AdminCall) -> Any:
    with readable():
        return call.reports.exchanges(call.request.query_params.multi_items())


def exchange(call: AdminCall) -> Any:
    return _or_not_found(call.reports.exchange(call.named), "no exchange has that id")


def run(call: AdminCall) -> Any:
    return _or_not_found(call.reports.run(call.named, given(call.query.consumer)), "no run has that name")


def compare(call: AdminCall) -> Any:
    asked = call.query
    with readable():
        more = {"label": given(asked.label), "model": given(asked.model)}
        return call.reports.compare(asked.a, asked.b, _begin(asked), **more)


def compare_pairs(call: AdminCall) -> Any:
    asked = call.query
    with readable():
        pairs = asked.of, asked.name
        a, b = (asked.name, "its shadow") if asked.of == "shadow" else ("the record", f"the replay {asked.name}")
        return call.reports.compare(a, b, _begin(asked), label=given(asked.label), pairs=pairs)


def _begin(asked: Any) -> str | int:
    return asked.hours if asked.start is msgspec.UNSET else asked.start  # type: ignore[no-any-return]


def _or_not_found(found: Any, without: str) -> Any:
    """Returns `found`. Raises ReportError (404) for None."""
    if not found:
        raise ReportError(404, without)
    return found


# --- grants, the cache and the ledger


def grant(call: AdminCall) -> Any:
    with readable():
        wanted = msgspec.structs.asdict(call.body) | {"amount": Decimal(call.body.amount)}
        found = call.reports.grant(wanted)
    call.detail = {name: found[name] for name in ("id", "budget", "scope", "amount", "expires_at")}
    return found


def reset(call: AdminCall) -> Any:
    with readable():
        found = call.reports.reset(call.named, call.body.scope)
    call.detail = found
    return found


def asked(call: AdminCall) -> Any:
    """The questions; the arguments of calls are for those who may answer."""
    found = call.reports.questions()
    if call.operator.may("operator"):
        return found
    return [one if one["call"] is None else {**one, "call": {**one["call"], "arguments": ""}} for one in found]


def decide(call: AdminCall) -> Any:
    asked: questions.Decision = call.body
    found = call.reports.decide(
        call.named, approve=asked.decision == "approve", by=call.operator.name, reason=asked.reason
    )
    names = ("state", "consumer", "reason", *(("budget", "scope", "amount") if found["call"] is None else ()))
    called = found["call"] or {}
    call.detail = {
        **{name: found[name] for name in names},
        **{name: value for name, value in called.items() if name != "arguments"},  # the trail has their digest
    }
    return found


def end_sign_in(call: AdminCall) -> Any:
    call.detail = found = msgspec.structs.asdict(call.body)
    call.reports.end_sign_in(**found)
    return found


def revoke(call: AdminCall) -> None:
    _or_not_found(call.reports.revoke(call.named), "no grant has that id")


def forget_answers(call: AdminCall) -> Any:
    found = {"deleted": call.reports.forget(call.body.consumer)}
    call.detail = found  # leaves out the consumer's name, which may have to be forgotten
    return found


def forget_consumer(call: AdminCall) -> Any:
    asked: answers.ForgetConsumer = call.body
    done = call.reports.forget_consumer(asked.consumer, delete=asked.delete)
    call.detail = {"deleted": asked.delete, **done}  # leaves out the consumer's name
    return done


def export(call: AdminCall) -> Response:
    query: answers.ExportQuery = call.query
    rows = call.reports.export(query.consumer, given(query.before), query.limit)
    call.detail = {"consumer": query.consumer, "rows": len(rows)}
    return Response(b"".join(b"%b\n" % bytes(JSON(row).body) for row in rows), media_type="application/jsonl")


# --- sign-on


def _sign_on(call: AdminCall) -> SignOn:
    found: SignOn | None = call.request.app.state.signon
    if found is None:
        raise ReportError(404, "sign-on is not set up: admin.oidc")
    return found


def login(call: AdminCall) -> Response:
    return _sign_on(call).login(call.request)


def callback(call: AdminCall) -> Response:
    answer, operator = _sign_on(call).callback(call.request)
    if operator is not None:
        call.desk.record(operator.name, operator.role, "sign_in", {})
    return answer


def sign_out(call: AdminCall) -> Response:
    return _sign_on(call).logout(call.request)


# --- operators, keys, models


def me(call: AdminCall) -> Any:
    operator, desk = call.operator, call.request.app.state.desk
    return {
        "name": operator.name,
        "role": operator.role,
        "session": operator.session,
        "door": None if desk is None else desk.door(),
        "trace_link": "" if desk is None else desk.trace_link(),
        "stale": call.reports.stale(),
        "certificate": call.reports.certificate(),
    }


def issue_key(call: AdminCall) -> Any:
    asked: answers.NewKey = call.body
    made = call.desk.issue(asked.consumer, asked.name, asked.expires_in, call.operator.name)
    call.detail = {name: made[name] for name in ("id", "consumer", "name", "expires_at")}
    return made


def revoke_key(call: AdminCall) -> None:
    _or_not_found(call.desk.revoke_key(call.named), "no key in force has that id")


def explain(call: AdminCall) -> Any:
    asked: answers.Explain = call.body
    content = b"" if asked.body is None else msgspec.json.encode(asked.body)
    call.detail = {"model": asked.model, "consumer": asked.consumer}
    return call.desk.explain(asked.model, asked.consumer, path=asked.path, labels=asked.labels, body=content)


def change_settings(call: AdminCall) -> Any:
    asked: answers.ChangeSettings = call.body
    edits = [(each.path, each.value) for each in asked.edits]
    found = call.desk.file.change(asked.digest, asked.text, edits, apply=asked.apply)
    call.detail = {"applied": found["applied"], "before": asked.digest, "after": found["digest"]}
    return found


def audit(call: AdminCall) -> Any:
    return call.desk.trail(call.query.limit, given(call.query.before))
