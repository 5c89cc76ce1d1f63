"""History of tries: cool-downs that deployments asked for or that failures caused, and the speed of each deployment.

A deployment is a model at a provider (`Target.deployment`). Envoy reports each try when it ends, to `learn`. Processes
that share a counters store exchange their findings through `note` and `merge`, so each process knows the tries of all.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from extproc.routing.busy import Busy
from extproc.routing.failing import Failing
from extproc.routing.streaks import CoolDownRule, Streaks, key, whole

FORGET = 600.0
"""Seconds in which a finding loses most (1 - 1/e) of its weight."""
MAX_PLACES = 2000
MAX_COOLED = 500
"""Most cool-downs that are remembered for people, the latest ones."""
_MAX_SHARED = 300  # most deployments in a note, the latest first

_DAY = 86_400.0
_RECENT = 32  # samples of a percentile
_STEP = 0.2  # weight of one sample
_LEAP = 3.0  # a sample counts at most this many times the known value, so that one straggler decides nothing
_STALE = 30.0  # seconds after which a chosen deployment is measured anew
_PROBE = 1.0  # seconds for which one request to an unmeasured deployment is enough
_SIZES = (4 << 10, 32 << 10, 256 << 10)  # bytes of the request's body, the bounds of its classes
_NEAREST = tuple(  # for each class, all classes by their distance from it
    tuple(sorted(range(len(_SIZES) + 1), key=lambda other, class_=class_: abs(other - class_)))  # type: ignore[misc]
    for class_ in range(len(_SIZES) + 1)
)
_TYPICAL_ANSWER = 20_000  # bytes of a streamed answer: about 100 tokens in OpenAI's framing
_UNANSWERED = 1.0  # seconds assumed for a deployment that has only failed so far
_FAILED = 4.0  # a failed try costs as much as this many successful ones

_FAULTS = frozenset(("connect", "reset", "timeout", "overflow", "unhealthy", "408", "429", "3xx", "5xx", "cut"))
"""Outcomes (access_log.OUTCOMES) that count against the deployment; the client or the gateway caused the others."""
_NO_REQUESTS = frozenset(("connect", "overflow", "unhealthy", "429"))
"""Failures that no request causes."""


class Speed(msgspec.Struct, array_like=True):
    """The speed of one kind of request at one deployment. Seconds, and seconds per byte of a streamed answer."""

    first_byte: float = 0.0
    per_byte: float = 0.0
    failing: float = 0.0  # share of tries, 0 to 1
    samples: int = 0
    at: float = 0.0  # time of the last sample, epoch
    p95: float = 0.0  # 95th percentile of the latest first bytes of streamed answers
    rate: float = 0.0  # output tokens a second of streamed answers; 0: unknown

    def expected(self, now: float, failing: float = 0.0) -> float:
        """Expected seconds for a typical answer. The value fades with age, so that a deployment is measured again.
        `failing` is the share of the consumer's own tries that fail.
        """
        whole = self.first_byte + self.per_byte * _TYPICAL_ANSWER or _UNANSWERED
        return whole * (1 + _FAILED * max(self.failing, failing)) * math.exp(-max(0.0, now - self.at) / FORGET)


@dataclass(slots=True)
class _CoolDown:
    """A cool-down for all consumers: a deployment, or `provider/`, and the time in epoch seconds."""

    place: str
    begin: float
    end: float


class _Note(msgspec.Struct, array_like=True):
    cool: dict[str, float]
    speeds: list[tuple[str, bool, int, Speed]]
    busy: dict[str, float] = {}


_Kind = tuple[str, bool, int]  # deployment, streamed, class of size
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Note).decode


class History:
    """The history of one process. `clock` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # Ends of cool-downs in epoch seconds: by deployment if the provider asked for the cool-down, else by
        # streaks.key().
        self._cool: dict[str, float] = {}
        self._cooled: deque[_CoolDown] = deque(maxlen=MAX_COOLED)
        self._streaks = Streaks(self.cool, self._end, MAX_PLACES)
        self._speeds: dict[_Kind, Speed] = {}
        self._others: dict[_Kind, Speed] = {}  # findings of other processes
        self._probes: dict[_Kind, float] = {}
        self._failing = Failing(_STEP, FORGET)
        self._recent: dict[_Kind, deque[float]] = {}  # seconds to the first byte of the latest streamed answers
        self._busy = Busy()
        self._others_busy: dict[str, float] = {}

    def cooling(self, deployment: str, consumer: str = "") -> float:
        """Remaining seconds of the deployment's cool-down for the consumer; 0 without one."""
        return self.cause(deployment, consumer)[0] if self._cool else 0.0

    def cause(self, deployment: str, consumer: str) -> tuple[float, str]:
        """The seconds of `cooling`, and the cause in words."""
        return max(
            (self._left(deployment), "its provider asked for a pause"),
            (self._left(key(deployment)), "it keeps failing"),
            (self._left(key(deployment, consumer)), "it keeps failing this consumer's requests"),
            (self._left(key(whole(deployment))), "its provider cannot be reached"),
        )

    def _left(self, name: str) -> float:
        until = self._cool.get(name)
        if until is None:
            return 0.0
        left = until - self._clock()
        if left <= 0:
            self._end(name)
            return 0.0
        return left

    def _end(self, name: str) -> None:
        self._cool.pop(name, None)  # another thread may have removed it
        if (cooled := self._last_of(_place(name))) is not None:
            cooled.end = min(cooled.end, self._clock())

    def _begin(self, name: str, until: float) -> None:
        """Begin a cool-down, or make it longer."""
        self._cool.pop(name, None)
        self._cool[name] = until
        now, place = self._clock(), _place(name)
        if (latest := self._last_of(place)) is not None and latest.end >= now:
            latest.end = max(latest.end, until)
        elif place is not None:
            self._cooled.append(_CoolDown(place, now, until))

    def _last_of(self, place: str | None) -> _CoolDown | None:
        known = list(self._cooled)  # another thread may change it
        return next((cooled for cooled in reversed(known) if cooled.place == place), None)

    def failed(self, deployment: str, consumer: str, rule: CoolDownRule) -> None:
        """Note a try that failed by the deployment's fault, or perhaps by the request's."""
        self._streaks.failed(deployment, consumer, rule, self._clock())

    def unreachable(self, deployment: str, rule: CoolDownRule) -> None:
        """Note a try that could not connect to the deployment's provider."""
        self._streaks.failed(whole(deployment), "", rule, self._clock())

    def reached(self, deployment: str, consumer: str, seconds: float, *, served: bool) -> None:
        """Note a try that the provider answered after some seconds; `served`: the try was a success."""
        if self._streaks:
            began = self._clock() - seconds
            self._streaks.succeeded(whole(deployment), "", began)
            if served:
                self._streaks.succeeded(deployment, consumer, began)

    def cool(self, deployment: str, seconds: float) -> None:
        """Begin a cool-down of the deployment, in seconds."""
        until = self._clock() + seconds
        if seconds > 0 and until > self._cool.get(deployment, 0.0):
            self._begin(deployment, until)
            _shrink(self._cool)

    def learn(
        self,
        deployment: str,
        outcome: str,
        *,
        size: int = 0,
        streamed: bool = False,
        first_byte: float | None = None,
        rest: float = 0.0,
        answer: int = 0,
        consumer: str = "",
    ) -> None:
        """Note a try: the request's `size` in bytes, seconds to the first byte of the answer, seconds of the `rest`,
        bytes of the `answer`. `outcome` is one of access_log.OUTCOMES. A failure that the request may have caused
        counts for all consumers only together with failures of other consumers; without a `consumer` it does at once.
        """
        self._busy.add(deployment, (first_byte or 0.0) + rest, self._clock())
        if outcome != "ok" and outcome not in _FAULTS:
            return
        kind = (deployment, streamed, _size_class(size))
        speed = self._speeds.pop(kind, None) or Speed()
        self._speeds[kind] = speed  # keeps the latest kind last
        _shrink(self._speeds)
        self._probes.pop(kind, None)
        speed.samples += 1
        speed.at = self._clock()
        step = max(_STEP, 1 / speed.samples)
        if outcome != "ok":
            blameless = not consumer or outcome in _NO_REQUESTS
            if blameless or self._failing.failed(kind, consumer, speed.at):
                speed.failing += _STEP * (1 - speed.failing)
            return
        self._failing.succeeded(kind, consumer, speed.at)
        speed.failing -= _STEP * speed.failing
        if first_byte is not None:
            speed.first_byte = _towards(speed.first_byte, first_byte, step)
            if streamed:
                recent = self._recent.pop(kind, None) or deque(maxlen=_RECENT)
                self._recent[kind] = recent
                _shrink(self._recent)
                recent.append(first_byte)
                speed.p95 = _percentile(recent)
            if streamed and answer > 0:
                speed.per_byte = _towards(speed.per_byte, rest / answer, step)

    def wrote(self, deployment: str, size: int, tokens: int, seconds: float) -> None:
        """Note how long a streamed answer took for its `tokens`, from its first byte on."""
        speed = self._speeds.get((deployment, True, _size_class(size)))
        if speed is not None and tokens > 0 and seconds > 0:
            speed.rate = _towards(speed.rate, tokens / seconds, _STEP)

    def load(self, deployment: str) -> float:
        """Requests under way at the deployment, the mean of about the last minute over all processes."""
        return self._busy.mean(deployment, self._clock()) + self._others_busy.get(deployment, 0.0)

    def streaming(self, deployment: str, size: int) -> Speed | None:
        """The speed of streamed answers to requests of `size` bytes; None if it is not known, or long ago."""
        now = self._clock()
        for class_ in _NEAREST[_size_class(size)]:
            found = self._latest((deployment, True, class_))
            if found is not None:
                return found if now - found.at < FORGET else None
        return None

    def _latest(self, kind: _Kind) -> Speed | None:
        own, other = self._speeds.get(kind), self._others.get(kind)
        return other if own is None or (other is not None and other.at > own.at) else own

    def expected(self, deployment: str, size: int, *, streamed: bool, consumer: str = "") -> float | None:
        """Seconds that a typical answer of the deployment takes for the consumer. None: unknown, so a request should
        measure it. Infinite: a request is measuring it.
        """
        now, own_class = self._clock(), _size_class(size)
        for class_ in _NEAREST[own_class]:
            kind = (deployment, streamed, class_)
            found = self._latest(kind)
            if found is not None:
                return found.expected(now, self._failing.share(kind, consumer, now))
        return math.inf if 0 <= now - self._probes.get((deployment, streamed, own_class), 0.0) < _PROBE else None

    def chosen(self, deployment: str, size: int, *, streamed: bool, consumer: str = "") -> None:
        """Note a request to the deployment: one request is enough to measure it, to measure it again, or to test it
        after a cool-down.
        """
        now, kind = self._clock(), (deployment, streamed, _size_class(size))
        if self._streaks:
            self._streaks.tested(deployment, consumer, now)
        speed = self._speeds.get(kind)
        if speed is None:
            self._probes[kind] = now
            _shrink(self._probes)
        elif now - speed.at > _STALE:
            speed.at = now

    def note(self) -> bytes:
        """The findings of this process, for other processes."""
        now = self._clock()
        cool = {deployment: until for deployment, until in self._cool.items() if until > now}
        latest = list(self._speeds.items())[-_MAX_SHARED:]
        speeds = [(*kind, speed) for kind, speed in latest if now - speed.at < FORGET]
        busy = self._busy.latest(_MAX_SHARED, now)
        return _encode(_Note(dict(list(cool.items())[-_MAX_SHARED:]), speeds, busy)) if cool or speeds or busy else b""

    def merge(self, notes: Iterable[bytes]) -> None:
        """Replace earlier notes of other processes by these. Unreadable notes are left out."""
        others: dict[_Kind, Speed] = {}
        busy: dict[str, float] = {}
        now = self._clock()
        for data in notes:
            try:
                note = _decode(data)
            except msgspec.DecodeError:  # a note of another release
                continue
            for deployment, until in note.cool.items():
                if until > max(now, self._cool.get(deployment, 0.0)):
                    self._begin(deployment, until)
            for deployment, mean in note.busy.items():
                busy[deployment] = busy.get(deployment, 0.0) + mean
            for deployment, streamed, class_, speed in note.speeds:
                before = others.get((deployment, streamed, class_))
                if before is None or speed.at > before.at:
                    others[deployment, streamed, class_] = speed
        _shrink(self._cool)
        self._others, self._others_busy = others, busy

    def deployments(self) -> dict[str, dict[str, Any]]:
        """The findings about each deployment, for people, in rounded seconds, and under `cooled` the cool-downs of the
        last day: (begin, end) in epoch seconds. Safe to call from another thread.
        """
        now = self._clock()
        found: dict[str, dict[str, Any]] = {}
        for cooled in list(self._cooled):
            if now - cooled.end < _DAY:
                times = found.setdefault(cooled.place, {}).setdefault("cooled", [])
                times.append((round(cooled.begin, 1), round(cooled.end, 1)))
        for name in list(self._cool):
            deployment, _, consumer = name.partition("\n")
            if wait := round(self._left(name), 1):
                entry = found.setdefault(deployment, {})
                if consumer:
                    entry["cooling_consumers"] = entry.get("cooling_consumers", 0) + 1
                else:
                    entry["cooling_down_s"] = max(wait, entry.get("cooling_down_s", 0.0))
        for (deployment, streamed, _), speed in list(self._speeds.items()):
            if now - speed.at < FORGET:
                entry = found.setdefault(deployment, {})
                entry["streamed_first_byte_s" if streamed else "plain_s"] = round(speed.first_byte, 4)
                if speed.p95 and streamed:
                    entry["ttft_p95_s"] = round(speed.p95, 4)
                if speed.rate:
                    entry["tokens_per_s"] = round(speed.rate, 1)
                entry["failing"] = max(entry.get("failing", 0.0), round(speed.failing, 3))
        return found


def _place(name: str) -> str | None:
    """The deployment of a cool-down by its name in `History`; None for the cool-down of one consumer."""
    deployment, _, consumer = name.partition("\n")
    return None if consumer else deployment


def retry_after(value: str, now: float) -> float | None:
    """Seconds of a Retry-After header, or None when it is not readable.

    Source: RFC 9110, 10.2.3: a number of seconds or an HTTP date.
    """
    value = value.strip()
    if value.replace(".", "", 1).isdecimal() and value.isascii() and len(value) <= 12:
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _percentile(samples: Sequence[float]) -> float:
    """The 95th percentile of some samples, by the nearest rank."""
    return sorted(samples)[math.ceil(0.95 * len(samples)) - 1]


def _towards(known: float, sample: float, step: float) -> float:
    if not known:  # the deployment has only failed so far
        return sample
    if step == _STEP:
        sample = min(sample, known * _LEAP)
    return known + step * (sample - known)


def _size_class(size: int) -> int:
    return next((index for index, limit in enumerate(_SIZES) if size < limit), len(_SIZES))


def _shrink(entries: dict[Any, Any]) -> None:
    """Forget the oldest entries beyond the limit."""
    while len(entries) > MAX_PLACES:
        del entries[next(iter(entries))]
