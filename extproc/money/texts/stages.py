"""Stages that collect the texts of exchanges, where the settings say `record`, and read traits of answers that are
compared with others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from extproc.exchange.services import Services
from extproc.money.texts import PAIRED, TRAITS, Recorder, Text, TextKeys
from extproc.money.texts.settings import RecordSettings
from extproc.money.texts.traits import read_traits
from extproc.routing.matching import compiled, mismatch
from extproc.routing.shadow import SHADOWED, is_drawn
from extproc.settings.config import Settings
from extproc.wire.framing import Frame, Framing
from extproc.wire.framing.multipart import is_form
from extproc.words.exchange import Exchange, FeatureKey

_INLINE = 4 << 10  # most bytes of an answer whose traits are read on the event loop
UNRECORDED = RecordSettings.model_construct(keys=(), share=0.0)
"""Settings where nothing is recorded, and only traits are read within these limits."""


@dataclass(slots=True)
class Recording:
    """The texts of an exchange so far. `size` is counted in the recorder. `kept`: they are recorded, not only read.
    `paired`: they are of use only if a shadow gets the request, too.
    """

    request: bytes
    kept: bool = True
    paired: bool = False
    size: int = 0
    cut: bool = False
    pieces: list[bytes] = field(default_factory=list)
    ended: bool = False


RECORDING: FeatureKey[Recording] = FeatureKey("recording")


class Draw:
    """Begins the recording of a request, if it is drawn or its answer is compared with others, and if there is room.
    Answers of `canaries` are compared, and of the virtual models in `shadowed` a share.
    """

    def __init__(
        self,
        settings: RecordSettings,
        recorder: Recorder,
        count: Callable[[str], None],
        canaries: Collection[str] = (),
        shadowed: Mapping[str, float] | None = None,
    ) -> None:
        self._limits = settings
        self._match = compiled(settings.match)
        self._canaries = canaries
        self._shadowed = shadowed or {}
        self._recorder = recorder
        self._count = count

    def __call__(self, exchange: Exchange) -> None:
        limits, body = self._limits, exchange.request.body
        if not body or is_form(body) or exchange.route.kept.object:
            return
        kept = random.random() < limits.share and mismatch(self._match, exchange) is None  # noqa: S311 - no secret
        compared = kept or self._is_compared(exchange)
        if not compared and not is_drawn(exchange.id, self._shadowed.get(exchange.route.chain.name, 0.0)):
            return
        request = bytes(body[: limits.most]) if kept else b""
        if self._recorder.size + len(request) > limits.memory:
            if kept:
                self._count("dropped")
            return
        cut = kept and len(body) > limits.most
        exchange.features[RECORDING] = Recording(request, kept, not compared, len(request), cut)
        self._recorder.size += len(request)

    def _is_compared(self, exchange: Exchange) -> bool:
        labels = exchange.money.labels
        return exchange.route.chain.name in self._canaries or any(name in labels for name in PAIRED)


class Collect:
    """Collects the events of an answer, as the provider gave them in the client's API."""

    changes_length = False
    merges = True

    def __init__(self, settings: RecordSettings, recorder: Recorder) -> None:
        self._most = settings.most
        self._memory = settings.memory
        self._recorder = recorder

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return RECORDING in exchange.features

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        recording = exchange.features[RECORDING]
        for event in events:
            room = min(self._most - (recording.size - len(recording.request)), self._memory - self._recorder.size)
            piece = event.raw[: max(0, room)]
            recording.cut = recording.cut or len(piece) < len(event.raw)
            recording.size += len(piece)
            self._recorder.size += len(piece)
            recording.pieces.append(piece)
        return events


class ReadTraits:
    """Reads the traits of an answer, for its row."""

    async def __call__(self, exchange: Exchange) -> None:
        recording = exchange.features.get(RECORDING)
        if recording is None or recording.ended or recording.cut or not recording.pieces:
            return
        if recording.paired and SHADOWED not in exchange.features:
            return
        body = b"".join(recording.pieces)
        if len(body) + len(exchange.request.body) <= _INLINE:
            found = read_traits(exchange, body)
        else:
            found = await asyncio.to_thread(read_traits, exchange, body)
        if found is not None:
            exchange.features[TRAITS] = found


class KeepText:
    """Ends a recording: the text waits to be written, unless a guardrail found something in it that is not masked."""

    def __init__(self, recorder: Recorder, count: Callable[[str], None], now: Callable[[], float]) -> None:
        self._recorder = recorder
        self._count = count
        self._now = now

    def __call__(self, exchange: Exchange) -> None:
        recording = exchange.features.get(RECORDING)
        if recording is None or recording.ended:
            return
        recording.ended = True
        if not recording.kept:
            self._recorder.size -= recording.size
            return
        found = [verdict for verdict in exchange.findings.verdicts if verdict.kinds or verdict.reason]
        if not exchange.route.forwarded or any(each.on == "input" and each.action != "mask" for each in found):
            self._recorder.size -= recording.size
            self._count("withheld")
            return
        answer, withheld = b"".join(recording.pieces), any(each.on != "input" for each in found)
        if withheld:
            self._recorder.size -= len(answer)
            answer = b""
        path = exchange.request.head.path.partition("?")[0]  # a query may hold a key
        text = Text(recording.request, answer, recording.cut, withheld, path)
        self._recorder.put(exchange.id, self._now(), exchange.consumer.name, text)


@dataclass(slots=True, frozen=True)
class TextStages:
    """Each list is empty where nothing is recorded."""

    draw: Sequence[Draw] = ()
    collect: Sequence[Collect] = ()
    keep: Sequence[ReadTraits | KeepText] = ()


def texts(settings: Settings, services: Services) -> TextStages:
    """The stages, where texts are recorded and can be encrypted, and where answers are compared."""
    recorder, count = services.recorder, services.telemetry.texts_recorded
    record = UNRECORDED if settings.record is None or not TextKeys(settings.record.keys).able else settings.record
    models = settings.virtual_models.items()
    canaries = {name for name, each in models if each.canary is not None}
    shadowed = {name: each.shadow.share for name, each in models if each.shadow is not None}
    if record is UNRECORDED and not canaries and not shadowed:
        return TextStages()
    draw, keep = Draw(record, recorder, count, canaries, shadowed), KeepText(recorder, count, services.now)
    return TextStages([draw], [Collect(record, recorder)], (ReadTraits(), keep))
