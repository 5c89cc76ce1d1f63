"""Stages that collect the texts of exchanges, where the settings say `record`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from extproc.exchange.services import Services
from extproc.money.texts import Recorder, Text, TextKeys
from extproc.money.texts.settings import RecordSettings
from extproc.routing.matching import compiled, mismatch
from extproc.settings.config import Settings
from extproc.wire.framing import Frame, Framing
from extproc.wire.framing.multipart import is_form
from extproc.words.exchange import Exchange, FeatureKey


@dataclass(slots=True)
class Recording:
    """The texts of an exchange so far. `size` is counted in the recorder."""

    request: bytes
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    cut: bool = False
    ended: bool = False


RECORDING: FeatureKey[Recording] = FeatureKey("recording")


class Draw:
    """Begins the recording of a request, if it is drawn, and if there is room."""

    def __init__(self, settings: RecordSettings, recorder: Recorder, count: Callable[[str], None]) -> None:
        self._settings = settings
        self._match = compiled(settings.match)
        self._recorder = recorder
        self._count = count

    def __call__(self, exchange: Exchange) -> None:
        settings, body = self._settings, exchange.request.body
        if not body or is_form(body) or random.random() >= settings.share:  # noqa: S311 - no secret
            return
        if mismatch(self._match, exchange) is not None:
            return
        request = bytes(body[: settings.most])
        if self._recorder.size + len(request) > settings.memory:
            self._count("dropped")
            return
        exchange.features[RECORDING] = Recording(request, size=len(request), cut=len(body) > settings.most)
        self._recorder.size += len(request)


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
    keep: Sequence[KeepText] = ()


def texts(settings: Settings, services: Services) -> TextStages:
    """The stages, where texts are recorded and can be encrypted."""
    record, recorder, count = settings.record, services.recorder, services.telemetry.texts_recorded
    if record is None or not TextKeys(record.keys).able:
        return TextStages()
    return TextStages(
        [Draw(record, recorder, count)], [Collect(record, recorder)], [KeepText(recorder, count, services.now)]
    )
