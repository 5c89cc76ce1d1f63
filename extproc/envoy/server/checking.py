"""`extproc check` for operators, in a process of its own so that no request waits for it: the way of a request, the
verdict on settings that are not in force, and one small request to each provider.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extproc.operate.reports import ReportError

_PATIENCE = 30.0  # most seconds of one check
_LIVE = 180.0  # the same, with requests to all providers


class Checker:
    """Checks the settings in `file`, one check at a time. Methods block, and raise ReportError."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._turn = threading.Lock()

    def explain(
        self, model: str, consumer: str, *, path: str = "", labels: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Mapping[str, Any]:
        """Explain a request of a consumer; without `body` a minimal one."""
        given = [f"--model={model}", f"--consumer={consumer}", *([f"--path={path}"] if path else [])]
        given += [f"--label={name}={value}" for name, value in (labels or {}).items()]
        done = self._run(["--explain", *(["-"] if body else []), *given], body)
        if not done.stdout:  # the command cannot read the question: no such consumer, no such path
            raise ReportError(404, _text(done.stderr)[-1000:])
        return {"lines": _text(done.stdout).splitlines(), "forwarded": done.returncode == 0}

    def judge(self, text: str) -> tuple[bool, Sequence[str]]:
        """Judge `text` in place of the file's own: whether it loads, and its errors or lints."""
        done = self._run(["--stdin"], text.encode())
        return done.returncode == 0, (_text(done.stdout) + _text(done.stderr)).splitlines()

    def ask_providers(self) -> tuple[bool, Sequence[str]]:
        """Send one small request to each provider: whether all answered well, and a line for each."""
        done = self._run(["--live"], patience=_LIVE)
        return done.returncode == 0, (_text(done.stdout) + _text(done.stderr)).splitlines()

    def _run(
        self, options: Sequence[str], given: bytes = b"", patience: float = _PATIENCE
    ) -> subprocess.CompletedProcess[bytes]:
        if not self._turn.acquire(timeout=_PATIENCE):
            raise ReportError(503, "other checks are under way")
        try:
            return subprocess.run(  # noqa: S603 - the program itself, and each argument is one value of an option
                [sys.executable, "-m", "extproc", "check", f"--config={self.file}", *options],
                input=given,
                capture_output=True,
                timeout=patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ReportError(503, f"there was no answer in {patience:.0f} seconds") from None
        finally:
            self._turn.release()


def _text(output: bytes) -> str:
    return output.decode(errors="replace").strip()
