"""Measures a guardrail on texts with labels.

    python -m bench.guardrails.quality prompt_injection DATA.jsonl           recall and false positives, by source
    python -m bench.guardrails.quality prompt_injection DATA.jsonl --all     also on lines that were learned
    python -m bench.guardrails.quality prompt_injection DATA.jsonl --levels  the same at each sensitivity
    python -m bench.guardrails.quality bias DATA.jsonl                       F1, and the gap between identities
    python -m bench.guardrails.quality pii SPANS.json                        precision and recall by type
    python -m bench.guardrails.quality secrets DATA.jsonl                    a line without `label` is harmless
    python -m bench.guardrails.quality topics DATA.jsonl                     AUC by `intent`, from 30 examples of each

A line of DATA has `text` and `label` (1: to be found), and may have `kind` and `source`. Only held-out lines count, as
`parts.py` chooses them, unless `--all` is given. `--settings` sets more keys of the guardrail, as JSON. SPANS is a
list of objects with `full_text` and `spans` (`entity_type`, `start_position`, `end_position`), as presidio-research
writes them.
"""

from __future__ import annotations

import argparse
import base64
import codecs
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.guardrails import identities, phrases
from bench.guardrails.parts import HELD_OUT, part_of
from extproc.guardrails import GuardrailSettings, _model, kinds
from extproc.guardrails._guard import Guard

TYPES = {
    "CREDIT_CARD": "card",
    "PHONE_NUMBER": "phone",
    "US_SSN": "us_ssn",
    "EMAIL_ADDRESS": "email",
    "IP_ADDRESS": "ip",
    "IBAN_CODE": "iban",
    "US_DRIVER_LICENSE": "licence",
}
DISGUISES: Mapping[str, Callable[[str], str]] = {
    "plain": str,
    "digits for letters": lambda text: text.translate(str.maketrans("aeiostAEIOST", "431057431057")),
    "signs for letters": lambda text: text.translate(str.maketrans("aeioAEIO", "@3!0@3!0")),
    "ROT13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "each word reversed": lambda text: " ".join(word[::-1] for word in text.split(" ")),
    "spaces between letters": " ".join,
    "zero-width spaces": "\u200b".join,
    "full-width letters": lambda text: "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hexadecimal digits": lambda text: text.encode().hex(),
}
LEARNED = ("prompt_injection", "bias")


def guard(kind: str, more: Mapping[str, Any]) -> Guard:
    settings: GuardrailSettings = kinds()[kind](name=kind, kind=kind, **more)
    return Guard(settings, 0)


def found(detector: Guard, text: str, role: str = "user") -> bool:
    return bool(detector.all_hits(text, role, "text", time.monotonic() + 60))


def lines(path: str, *, everything: bool) -> Sequence[dict[str, Any]]:
    read = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    return [line for line in read if everything or part_of(line) == HELD_OUT]


def table(rows: Sequence[Sequence[object]]) -> None:
    for row in rows:
        print("| " + " | ".join(f"{one:.4f}" if isinstance(one, float) else str(one) for one in row) + " |")


def labelled(detector: Guard, data: Sequence[dict[str, Any]], role: str) -> None:
    groups = {name: [found(detector, line["text"], role) for line in group] for name, group in by_kind(data).items()}
    table([("label", "source", "texts", "found"), ("---",) * 4])
    table([(label, name, len(hits), sum(hits) / len(hits)) for (label, name), hits in sorted(groups.items())])
    hits = {label: [hit for (one, _), group in groups.items() if one == label for hit in group] for label in (0, 1)}
    right, wrong, missed = sum(hits[1]), sum(hits[0]), len(hits[1]) - sum(hits[1])
    table([(1, "all", len(hits[1]), right / max(1, len(hits[1])))])
    table([(0, "all", len(hits[0]), wrong / max(1, len(hits[0])))])
    print(f"\nprecision {right / max(1, right + wrong):.3f}, recall {right / max(1, right + missed):.3f}, ", end="")
    print(f"F1 {2 * right / max(1, 2 * right + wrong + missed):.3f}")


def by_kind(data: Sequence[dict[str, Any]]) -> Mapping[tuple[int, str], Sequence[dict[str, Any]]]:
    """The lines of each label and kind, or source; those of other languages than English apart."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for line in data:
        name = line.get("kind") or line.get("source") or "all"
        if not line.get("language"):
            name = f"{line.get('source', '').split('/')[0]} {line.get('kind') or ''}".strip() or "all"
        elif line["language"] != "en":
            name = f"{name}, others"
        groups[line.get("label", 0), name].append(line)
    return groups


def levels(data: Sequence[dict[str, Any]]) -> None:
    """Texts found, for each 1,000, at each sensitivity: read as a user's text, and as the result of a tool."""
    names = ("low", "medium", "high")
    guards = [
        (guard("prompt_injection", {"sensitivity": one, "tool_results_sensitivity": one}), role)
        for role in ("user", "tool")
        for one in names
    ]
    table([("label", "kind", "texts", *names, *(f"{one}, tool" for one in names)), ("---",) * 9])
    for (label, name), group in sorted(by_kind(data).items()):
        counts = [sum(found(detector, line["text"], role) for line in group) for detector, role in guards]
        table([(label, name, len(group), *(round(1000 * count / len(group)) for count in counts))])


def made(detector: Guard, *, held_out: bool) -> None:
    """Attacks and harmless texts made by the grammar, or by its templates that were held out."""
    rng, part = random.Random(5), True if held_out else None
    for name, make in (("attacks", phrases.attacks), ("harmless", phrases.harmless)):
        texts = make(rng, 2000, held_out=part)
        print(f"made by the grammar, {name}: found {sum(found(detector, text) for text in texts) / len(texts):.4f}")


def disguises(detector: Guard, data: Sequence[dict[str, Any]]) -> None:
    """Recall in each disguise as a share of that of the plain texts, and false positives."""
    groups = [[line["text"] for line in data if line.get("label", 0) == label] for label in (1, 0)]
    rates: dict[str, list[float]] = {}
    for name, change in DISGUISES.items():
        rates[name] = [sum(found(detector, change(text)) for text in texts) / max(1, len(texts)) for texts in groups]
    table([("disguise", "share of plain recall", "harmless texts found"), ("---",) * 3])
    whole = rates["plain"][0] or 1.0
    table([(name, recall / whole, wrong) for name, (recall, wrong) in rates.items()])


def gaps(detector: Guard) -> None:
    """False positives by group, on friendly and neutral sentences that name it."""
    rates = {
        group: sum(found(detector, sentence.format(g=group)) for sentence in identities.NEVER_LEARNED)
        / len(identities.NEVER_LEARNED)
        for group in identities.GROUPS
    }
    worst = sorted(rates, key=rates.__getitem__)
    print(f"false positives by group: {rates[worst[0]]:.3f} to {rates[worst[-1]]:.3f} ({worst[-1]}), ", end="")
    print(f"gap {rates[worst[-1]] - rates[worst[0]]:.3f}")


def spans(detector: Guard, path: str) -> None:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for line in json.loads(Path(path).read_text(encoding="utf-8")):
        text = line["full_text"]
        wanted = {
            (TYPES[one["entity_type"]], one["start_position"], one["end_position"])
            for one in line["spans"]
            if one["entity_type"] in TYPES
        }
        got = {
            (kind, start, end)
            for start, end, kind, *_ in detector.all_hits(text, "user", "text", time.monotonic() + 60)
            if kind in TYPES.values()
        }
        for place, group in enumerate((wanted & got, got - wanted, wanted - got)):
            for kind, _, _ in group:
                counts[kind][place] += 1
    table([("type", "right", "wrong", "missed", "F1"), ("---",) * 5])
    total = [sum(column) for column in zip(*counts.values(), strict=True)]
    for kind, (right, wrong, missed) in [*sorted(counts.items()), ("all", total)]:
        table([(kind, right, wrong, missed, 2 * right / max(1, 2 * right + wrong + missed))])


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    ranked = sorted([(score, 1) for score in positive] + [(score, 0) for score in negative])
    total, at = 0.0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        total += sum(label for _, label in ranked[at:end]) * (at + 1 + end) / 2
        at = end
    count = len(positive)
    return (total - count * (count + 1) / 2) / (count * len(negative))


def topics(data: Sequence[dict[str, Any]], count: int, others: int) -> None:
    from extproc.guardrails.topics import Topic

    groups: dict[str, list[str]] = defaultdict(list)
    for line in data:
        groups[line["intent"]].append(line["text"])
    rng = random.Random(0)
    names = sorted(groups)
    found_auc = {}
    for name in names:
        topic = Topic(name, groups[name][:count])
        rest = [text for other in names if other != name for text in groups[other][count:]]
        found_auc[name] = auc(
            [topic.score(text) for text in groups[name][count:]],
            [topic.score(text) for text in rng.sample(rest, min(others, len(rest)))],
        )
    worst = sorted(found_auc, key=found_auc.__getitem__)
    print(f"{len(names)} topics of {count} examples: mean AUC {statistics.mean(found_auc.values()):.4f}, ", end="")
    print(f"median {statistics.median(found_auc.values()):.4f}, lowest {found_auc[worst[0]]:.4f} ({worst[0]})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(kinds()))
    parser.add_argument("data")
    parser.add_argument("--all", action="store_true", help="also lines that were learned")
    parser.add_argument("--settings", type=json.loads, default={}, help="more settings of the guardrail, as JSON")
    parser.add_argument("--models", type=Path, help="folder of weights that `learn --to` wrote")
    parser.add_argument("--role", default="user", help="role of the texts: `tool` for results of tools")
    parser.add_argument("--examples", type=int, default=30, help="examples of a topic")
    parser.add_argument("--levels", action="store_true", help="of 1,000 texts found, at each sensitivity")
    parser.add_argument("--disguises", action="store_true", help="also recall in each disguise")
    parser.add_argument("--held-out-templates", action="store_true", help="for a model learned by --hold-out-templates")
    args = parser.parse_args()
    if args.models is not None:
        _model.FOLDER = args.models
    if args.kind == "topics":
        topics(lines(args.data, everything=True), args.examples, 2000)
        return
    if args.levels:
        levels(lines(args.data, everything=args.all))
        return
    detector = guard(args.kind, args.settings)
    if args.data.endswith(".json"):
        spans(detector, args.data)
        return
    labelled(detector, lines(args.data, everything=args.all or args.kind not in LEARNED), args.role)
    if args.kind == "prompt_injection":
        made(detector, held_out=args.held_out_templates)
        if args.disguises:
            disguises(detector, lines(args.data, everything=args.all))
    if args.kind == "bias":
        gaps(detector)


if __name__ == "__main__":
    main()
