"""`extproc guardrails try`: findings of the guardrails of the settings in texts of a file, before they meet traffic."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extproc.cli._options import add_config
from extproc.cli._tables import progress, table
from extproc.dialects import openai_chat
from extproc.guardrails import Detector, GuardrailSettings, RemoteSettings, kinds
from extproc.guardrails._guard import Guard
from extproc.settings.config import load
from extproc.wire.outbound.service import Failure

EXAMPLES = """\
  extproc guardrails try texts.jsonl                       all guardrails of gateway.yaml that ask no service
  extproc guardrails try texts.jsonl --only injections     one of them
  extproc guardrails try texts.jsonl --kind secrets        a kind with its default settings, without gateway.yaml
  extproc guardrails try requests.jsonl --format json      the report as JSON
"""

_LINES = (
    "a line is a text, {text, role, kind, label}, whose label is 1 where it should be found; a request, {messages}; or "
    "recorded prompts as an OpenTelemetry collector writes them to a file, {resourceLogs}"
)
_SECONDS = 60.0  # most seconds for one text


@dataclass(slots=True)
class _Text:
    text: str
    role: str = "user"
    kind: str = ""
    label: int | None = None


@dataclass(slots=True)
class _Group:
    """Texts of one kind."""

    texts: int = 0
    found: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["try"], help="try: count findings in the texts of a file")
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help=_LINES)
    add_config(parser)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="guardrail; may be repeated")
    parser.add_argument("--kind", metavar="KIND", help="a kind with its default settings, in place of --config")
    parser.add_argument("--format", choices=["table", "json"], default="table")


def run(options: argparse.Namespace) -> int:
    """Print the report. Raises OSError for a file that cannot be read, ValueError for a line of another form."""
    guards = _guards(options)
    texts = [*_read(options.file)]
    report: dict[str, dict[str, _Group]] = {}
    with progress() as say:
        for guard in guards:
            groups: dict[str, _Group] = defaultdict(_Group)
            for number, text in enumerate(texts, 1):
                _count(guard, text, groups)
                if number % 100 == 0 or number == len(texts):
                    say(f"{guard.name}: {_bar(number, len(texts))} {number} of {len(texts)} texts")
            report[guard.name] = dict(sorted(groups.items()))
    if options.format == "json":
        rows = {name: {kind: _row(group) for kind, group in groups.items()} for name, groups in report.items()}
        print(json.dumps(rows))
    else:
        print("\n\n".join(f"{name}\n{_format_groups(groups)}" for name, groups in report.items()))
    return 0


def _guards(options: argparse.Namespace) -> Sequence[Guard]:
    chosen: Sequence[GuardrailSettings]
    if options.kind is not None:
        if options.kind not in kinds():
            raise ValueError(f"--kind is one of {', '.join(sorted(kinds()))}")
        chosen = [kinds()[options.kind].model_validate({"name": options.kind, "kind": options.kind})]
    else:
        chosen = load(options.config).guardrails
    if unknown := {*options.only} - {one.name for one in chosen}:
        raise ValueError(f"no guardrail has the name {min(unknown)!r}")
    chosen = [one for one in chosen if not options.only or one.name in options.only]
    found = []
    for one in chosen:
        if isinstance(one, RemoteSettings) or not isinstance(one.build(), Detector):
            print(f"{one.name}: {one.kind} does not search text in this process; left out", file=sys.stderr)
        else:
            found.append(Guard(one, 0))
    if not found:
        raise ValueError("no guardrail to try: the settings have none that searches text in this process")
    return found


def _count(guard: Guard, text: _Text, groups: Mapping[str, _Group]) -> None:
    if not guard.reads_input(text.role):
        return
    label = {None: "", 0: "harmless ", 1: "to be found "}[text.label]
    group = groups[f"{label}{text.kind}".strip() or "all"]
    group.texts += 1
    try:
        hits = guard.all_hits(text.text, text.role, "text", time.monotonic() + _SECONDS)
    except Failure as failure:
        group.kinds[f"failed: {failure.reason}"] += 1
        return
    group.found += bool(hits)
    group.kinds.update({hit.kind for hit in hits})
    if skipped := guard.skips(text.text, text.role):
        group.kinds[f"not judged: {skipped}"] += 1


def _row(group: _Group) -> Mapping[str, Any]:
    per_thousand = round(1000 * group.found / group.texts, 1)
    return {"texts": group.texts, "found": group.found, "per_1000": per_thousand, "kinds": dict(group.kinds)}


def _format_groups(groups: Mapping[str, _Group]) -> str:
    rows = []
    for name, group in groups.items():
        row = _row(group)
        kinds_found = ", ".join(f"{kind} {count}" for kind, count in group.kinds.most_common(8))
        rows.append([name, str(row["texts"]), str(row["found"]), f"{row['per_1000']:.1f}", kinds_found])
    return table(["texts of", "texts", "found", "per 1,000", "by kind"], rows, right=(1, 2, 3))


def _bar(done: int, all_: int) -> str:
    return "#" * (24 * done // all_) + "." * (24 - 24 * done // all_)


def _read(path: Path) -> Iterator[_Text]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield from _texts(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError):
                raise ValueError(
                    f"{path}, line {number}: neither a text, nor a request, nor recorded prompts"
                ) from None


def _texts(line: Mapping[str, Any]) -> Iterator[_Text]:
    kind = str(line.get("kind") or line.get("source") or "")
    label = None if line.get("label") is None else int(bool(line["label"]))
    if isinstance(text := line.get("text"), str):
        yield _Text(text, line.get("role", "user"), kind, label)
    elif "resourceLogs" not in line:
        found = [*openai_chat.texts(line)]
        if not found:
            raise ValueError("no text")
        yield from (_Text(one.value, one.role, kind, label) for one in found)
    else:
        records = [
            record
            for resource in line["resourceLogs"]
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ]
        for record in records:
            attributes = {each["key"]: each["value"] for each in record["attributes"]}
            for message in attributes.get("gen_ai.input.messages", {}).get("arrayValue", {}).get("values", ()):
                yield from _recorded(_fields(message))


def _recorded(message: Mapping[str, Any]) -> Iterator[_Text]:
    for part in message["parts"]["arrayValue"]["values"]:
        yield _Text(_fields(part)["content"]["stringValue"], message["role"]["stringValue"])


def _fields(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of an OTLP map."""
    return {each["key"]: each["value"] for each in value["kvlistValue"]["values"]}
