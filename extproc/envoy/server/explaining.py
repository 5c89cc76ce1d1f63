"""The way of a request through the gateway, for operators: `extproc check --explain` in a process of its own, so that
no request waits for it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extproc.operate.reports import ReportError

_PATIENCE = 30.0  # most seconds of one explanation


class Explainer:
    """Explains requests to the settings in `file`, one at a time."""

    def __init__(self, file: Path) -> None:
        self._command = [sys.executable, "-m", "extproc", "check", f"--config={file}", "--explain"]
        self._turn = threading.Lock()

    def __call__(
        self, model: str, consumer: str, *, path: str = "", labels: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Mapping[str, Any]:
        """Explain a request of a consumer; without `body` a minimal one. Blocks. Raises ReportError."""
        given = [f"--model={model}", f"--consumer={consumer}", *([f"--path={path}"] if path else [])]
        given += [f"--label={name}={value}" for name, value in (labels or {}).items()]
        if not self._turn.acquire(timeout=_PATIENCE):
            raise ReportError(503, "other explanations are under way")
        try:
            done = subprocess.run(  # noqa: S603 - the program itself, and each argument is one value of an option
                [*self._command, *(["-"] if body else []), *given],
                input=body,
                capture_output=True,
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ReportError(503, f"there was no explanation in {_PATIENCE:.0f} seconds") from None
        finally:
            self._turn.release()
        if not done.stdout:  # the command cannot read the question: no such consumer, no such path
            raise ReportError(404, done.stderr.decode(errors="replace").strip()[-1000:])
        return {"lines": done.stdout.decode(errors="replace").splitlines(), "forwarded": done.returncode == 0}
