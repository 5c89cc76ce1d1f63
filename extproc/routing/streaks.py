"""Failures in a row, and the cool-downs that follow from them.

A request can be the reason why a model fails, so one consumer's requests must not move the traffic of others. A model
that keeps failing one consumer cools down for that consumer alone. It cools down for all consumers when requests of at
least two consumers fail in a row, and each consumer counts for at most half of the failures. A connection that cannot
be made is no request's fault: it counts for the provider as a whole.

After a cool-down one request at a time tests the target. A failed test begins a longer cool-down, a successful one ends
all cool-downs of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_CONSUMERS = 200
"""Consumers whose failures at one deployment are counted. Beyond it the oldest are forgotten."""


@dataclass(slots=True, frozen=True)
class CoolDownRule:
    """The provider's settings. Times are in seconds."""

    failures: int  # failures in a row before the first cool-down
    pause: float  # seconds of the first cool-down; the n-th in a row takes n times as long
    longest: float
    probe: float  # time between two requests that test a target after its cool-down


@dataclass(slots=True)
class _Streak:
    """Failures of one deployment in a row."""

    since: float  # time of the first failure
    rule: CoolDownRule
    own: dict[str, int] = field(default_factory=dict)  # by consumer, failures since its latest success
    everyone: dict[str, int] = field(default_factory=dict)  # by consumer, since any success or cool-down for all
    cooled: int = 0  # cool-downs for everybody since a success
    ends: dict[str, float] = field(default_factory=dict)  # ends of cool-downs, by key()


def key(deployment: str, consumer: str = "") -> str:
    """The key of a cool-down for one consumer, or for all. `provider/` stands for all models of a provider."""
    return f"{deployment}\n{consumer}"


class Streaks:
    """The streaks of one process. `cool` begins a cool-down by its key() and seconds, `end` ends it by its key().

    Times are seconds since the epoch.
    """

    def __init__(self, cool: Callable[[str, float], None], end: Callable[[str], None], most: int) -> None:
        self._cool = cool
        self._end = end
        self._most = most
        self._streaks: dict[str, _Streak] = {}

    def __bool__(self) -> bool:
        return bool(self._streaks)

    def failed(self, deployment: str, consumer: str, rule: CoolDownRule, now: float) -> None:
        """Note a failure. Without a consumer it counts for all consumers."""
        streak = self._streaks.pop(deployment, None) or _Streak(now, rule)
        self._streaks[deployment] = streak  # keeps the latest deployment last
        streak.rule = rule
        _shrink(self._streaks, self._most)
        own = key(deployment, consumer)
        if now >= streak.ends.get(own, 0.0):  # failures during a cool-down do not make it longer
            count = streak.own.pop(consumer, 0) + 1
            streak.own[consumer] = count
            _shrink(streak.own, MAX_CONSUMERS)
            self._cool_down(streak, own, count - rule.failures + 1, now)
        everyone = key(deployment)
        if not consumer or now < streak.ends.get(everyone, 0.0):
            return
        streak.everyone[consumer] = streak.everyone.get(consumer, 0) + 1
        _shrink(streak.everyone, MAX_CONSUMERS)
        most = -(-rule.failures // 2)
        total = sum(min(count, most) for count in streak.everyone.values())
        if len(streak.everyone) > 1 and total >= rule.failures:
            streak.everyone.clear()
            streak.cooled += 1
            self._cool_down(streak, everyone, streak.cooled, now)

    def succeeded(self, deployment: str, consumer: str, began: float) -> None:
        """Note the success of a try that began at that time; a try from before the failures does not count."""
        streak = self._streaks.get(deployment)
        if streak is None or began < streak.since:
            return
        streak.everyone.clear()
        streak.own.pop(consumer, None)
        streak.cooled = 0
        for name in (key(deployment), key(deployment, consumer)):
            if streak.ends.pop(name, None) is not None:
                self._end(name)
        if not streak.own:
            del self._streaks[deployment]

    def tested(self, deployment: str, consumer: str, now: float) -> None:
        """Note a request to a target whose cool-down may be over: the next requests wait for its result."""
        for name, streak in self._over(deployment, consumer, now):
            self._cool(name, streak.rule.probe)

    def _over(self, deployment: str, consumer: str, now: float) -> Iterator[tuple[str, _Streak]]:
        """Keys of cool-downs that are over, of targets without an answer since."""
        for place in (deployment, whole(deployment)):
            if (streak := self._streaks.get(place)) is not None:
                for name in {key(place), key(place, consumer)}:
                    if 0 < streak.ends.get(name, 0.0) <= now:
                        yield name, streak

    def _cool_down(self, streak: _Streak, name: str, times: int, now: float) -> None:
        seconds = min(streak.rule.longest, streak.rule.pause * times)
        if seconds > 0:
            streak.ends[name] = now + seconds
            _shrink(streak.ends, MAX_CONSUMERS)
            self._cool(name, seconds)


def whole(deployment: str) -> str:
    """The deployment name that stands for all models of the provider."""
    return deployment.partition("/")[0] + "/"


def _shrink(entries: dict[str, Any], most: int) -> None:
    while len(entries) > most:
        del entries[next(iter(entries))]
