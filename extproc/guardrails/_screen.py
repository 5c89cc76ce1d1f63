"""Regex guardrails of a request, screened together: one pass of RE2 shows which of them may find something.

The pass reads every form of the text that a guardrail would read, so only the guardrails it names have to search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from extproc.guardrails._base import Detector, Finding
from extproc.guardrails._guard import Guard
from extproc.guardrails._patterns import Matching
from extproc.wire.outbound.service import Failure


class Screen:
    """Guardrails with patterns that read the same texts."""

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._first = guards[0]
        self._orders = frozenset(guard.order for guard in guards)
        self._owners = [guard.order for guard in guards for _ in guard.patterns]
        self._matching = Matching([pattern for guard in guards for pattern in guard.patterns])

    def passed(self, guards: Sequence[Guard], search: Callable[[Guard], object]) -> Sequence[Guard]:
        """The guardrails that may find something. `search` searches the texts with a guardrail."""
        if sum(guard.order in self._orders for guard in guards) < 2:
            return guards
        noting = _Noting(self._matching, self._owners, self._first.longest)
        if isinstance(search(self._first.using(noting)), Failure):
            return guards
        return [guard for guard in guards if guard.order not in self._orders or guard.order in noting.seen]


class _Noting(Detector):
    """Notes the guardrails whose patterns match, and finds nothing."""

    def __init__(self, matching: Matching, owners: Sequence[int], longest: int) -> None:
        self.max_match = longest
        self.seen: set[int] = set()
        self._matching, self._owners = matching, owners

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        data = text.encode("utf-8", "surrogatepass")
        self.seen.update([self._owners[index] for index in self._matching.indexes(data)])
        return ()


def screens(guards: Sequence[Guard]) -> Sequence[Screen]:
    """A screen for all guardrails with patterns that read the same texts."""
    groups: dict[tuple[frozenset[str], int], list[Guard]] = {}
    for guard in guards:
        if guard.patterns:
            groups.setdefault((guard.on, guard.longest), []).append(guard)
    return [Screen(group) for group in groups.values() if len(group) > 1]
