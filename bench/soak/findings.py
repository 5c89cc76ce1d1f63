"""The invariants (`I1` and so on are the design's numbers) and the results of their checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.soak.clients import Outcome
from bench.soak.plan import CHARGED, HOLDS
from bench.soak.watch import Samples

BELIEVED = 0.9  # share of the true tokens that is charged at least, even to hostile clients

INVARIANTS = {
    "I1": "settled + reserved never above the limit",
    "I2": "nothing is ever negative",
    "I3": "nothing stays reserved",
    "I4": "counters = sums of the ledger's charges",
    "I4 metrics": "metrics = ledger, while no process was killed",
    "I5": "settled twice is charged once",
    "I6": "what is refused never reaches a provider",
    "I7": "all budgets of a request move together",
    "I8": "each request is charged in one window",
    "I9": "at least 90 % of the true tokens are charged",
    "I10": "nothing is refused while there is room",
    "I11": "three processors spend no more than one",
    "I12": "without its store a budget lets nothing through, and a loss is told",
    "I14": "a lowered limit binds from the next request",
    "bugs": "no internal error",
}


@dataclass(slots=True)
class Finding:
    """The number of checks of an invariant, and the violations."""

    checked: int = 0
    wrong: list[str] = field(default_factory=list)
    note: str = ""

    def check(self, right: bool, otherwise: str) -> None:
        self.checked += 1
        if not right:
            self.wrong.append(otherwise)


class Findings(dict[str, Finding]):
    """Findings by the name of the invariant. `refused`, `expired` and `fullest` show how hard the run was."""

    def __init__(self) -> None:
        super().__init__({name: Finding() for name in INVARIANTS})
        self.refused = 0  # requests
        self.expired = 0  # leases
        self.fullest = 0.0  # highest share of its limit that a count was seen at

    @property
    def held(self) -> bool:
        """True when every invariant was checked and held."""
        return all(finding.checked and not finding.wrong for finding in self.values())

    def table(self) -> str:
        lines = []
        for name, finding in self.items():
            result = "held" if finding.checked and not finding.wrong else "VIOLATED" if finding.checked else "NOT SEEN"
            lines.append(f"{name:<11}{INVARIANTS[name]:<68}{finding.checked:>9}  {result}  {finding.note}".rstrip())
            lines += [f"           - {wrong}" for wrong in finding.wrong[:10]]
        return "\n".join(lines)

    def equal(self, name: str, when: str, ours: Mapping[str, int], theirs: Mapping[str, int]) -> None:
        """Compare sums by scope. An absent one is 0."""
        for key in sorted({*ours, *theirs}):
            one, other = ours.get(key, 0), theirs.get(key, 0)
            self[name].check(one == other, f"{when}, {key}: {one} and {other}")

    def take(self, samples: Samples) -> None:
        for name, wrong in (("I1", samples.beyond), ("I2", samples.negative)):
            self[name].checked += samples.counts
            self[name].wrong += wrong
        self.fullest = samples.fullest
        self["I1"].note = f"{samples.taken} samples, the fullest count at {samples.fullest:.1%}"


def check_books(
    findings: Findings,
    rows: Sequence[Mapping[str, Any]],
    outcomes: Iterable[Outcome],
    provided: Sequence[Mapping[str, Any]],
) -> None:
    """Compare the clients' outcomes, the provider's requests and the ledger's rows."""
    by_tag = {row["labels"]["tag"]: row for row in rows if "tag" in row["labels"]}
    asked = {tag_of(seen): seen for seen in provided}
    rows_of = Counter(row["labels"]["tag"] for row in rows if "tag" in row["labels"])
    for tag, number in rows_of.items():
        findings["I5"].check(number == 1, f"{tag} has {number} rows")
    findings["I6"].check(len(asked) == len(provided), "a request reached the provider twice")
    left = []
    findings.expired = expired = sum(row["usage_source"] == "expired" for row in rows)
    for outcome in outcomes:
        row = by_tag.get(outcome.tag)
        if outcome.refused:
            findings.refused += 1
            findings["I6"].check(outcome.tag not in asked, f"{outcome.tag} was refused and reached the provider")
            findings["I10"].check(not outcome.needless, f"{outcome.tag} was refused with room left")
        elif outcome.tag in asked and row is not None and outcome.ended == "left":
            left.append((row, asked[outcome.tag]))
    unwritten = [tag for tag in asked if tag not in by_tag]
    findings["I6"].check(len(unwritten) <= expired, f"{len(unwritten)} reached the provider without a row")
    for row in rows:
        if row["charges"]:
            charged = {scope.partition(":")[0]: amount for scope, amount in row["charges"].items()}
            whole = charged.keys() == CHARGED and len(row["charges"]) == HOLDS - 1
            findings["I7"].check(whole, f"{row['id']} was charged {row['charges']}")
            same = charged.get("count") == charged.get("rate") and charged.get("count") in (0, 1)
            findings["I8"].check(same, f"{row['id']} was charged {row['charges']}")
    for what, charged, true in (
        ("all", sum(map(charged_tokens, rows)), sum(map(true_tokens, provided))),
        ("left", sum(charged_tokens(row) for row, _ in left), sum(true_tokens(seen) for _, seen in left)),
    ):
        share = charged / true if true else 1.0
        findings["I9"].check(share >= BELIEVED, f"{what}: {charged} of {true} tokens were charged")
        findings["I9"].note += f"{what}: {share:.0%} of {true}; "
    findings["I9"].checked += len(left)


def tag_of(seen: Mapping[str, Any]) -> str:
    tag: str = seen["body"]["messages"][0]["content"].split()[0]
    return tag


def true_tokens(seen: Mapping[str, Any]) -> int:
    """The tokens the provider read and wrote, as far as its connection could deliver them."""
    words = len(seen["body"]["messages"][0]["content"].split())
    written = int(seen["model"].partition("+words=")[2].partition("+")[0])
    if seen["aborted"]:
        written = min(written, max(0, int(seen["events"]) - 1))  # the first event only names the role
    return words + written


def charged_tokens(row: Mapping[str, Any]) -> int:
    charges = row["charges"] or {}
    return sum(amount for scope, amount in charges.items() if scope.startswith("tokens:"))
