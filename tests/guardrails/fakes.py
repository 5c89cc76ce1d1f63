"""Guardrails for tests: settings whose detector is given, and the stage with what it told."""

import re
import time
from typing import Any, Literal

from extproc.guardrails import Detector, Finding, GuardInput, GuardrailSettings

EMAIL = r"[a-z0-9.]+@[a-z0-9.]*[a-z0-9]"
KEY = r"\bsk-[A-Za-z0-9]{12}\b"


class Words(Detector):
    """Finds a pattern, by default without `hold`."""

    def __init__(self, kind, pattern, longest=256):
        self.kind, self._pattern, self.max_match = kind, re.compile(pattern), longest
        self.seen = []

    def find(self, text, role, where):
        self.seen.append((text, role, where))
        return [Finding(self.kind, match.span()) for match in self._pattern.finditer(text)]


class Holding(Words):
    """Holds back the last word only."""

    def hold(self, text):
        return len(text) - len(text.rstrip()) if text[-1:].isspace() else len(re.split(r"\s", text)[-1])


class Raising(Detector):
    def find(self, text, role, where):
        raise RuntimeError("CANARY")


class Slow(Detector):
    def __init__(self, seconds=0.15):
        self._seconds = seconds

    def find(self, text, role, where):
        time.sleep(self._seconds)
        return []


class Lying(Detector):
    def find(self, text, role, where):
        return [Finding("x", (0, len(text) + 1))]


class Fake(GuardrailSettings):
    kind: Literal["fake"] = "fake"
    detector: Any = None

    def build(self):
        return self.detector


def fake(detector=None, name="g", **settings):
    return Fake(name=name, detector=detector or Words("email", EMAIL), **settings)


class Guard:
    """The stage of requests."""

    def __init__(self, *settings, most=64):
        self.verdicts = []
        self.stage = GuardInput(settings, self.verdicts.append, most=most)

    @property
    def told(self):
        return [(verdict.guardrail, verdict.action, dict(verdict.kinds)) for verdict in self.verdicts]
