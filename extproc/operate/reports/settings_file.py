"""The settings file, for operators: its text, and changes of it with their verdict. Methods block."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from extproc.operate.reports import ReportError
from extproc.settings.document import ConfigError
from extproc.settings.edit import difference, with_value

MOST = 4 << 20  # most bytes of the file
SHOWN = 48 << 10
"""Most bytes of a text that the console edits as a whole: it fits into a body. Larger files take single values."""


class Checks(Protocol):
    """`extproc check` of a file, in a process of its own."""

    file: Path

    def explain(
        self, model: str, consumer: str, *, path: str = "", labels: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Mapping[str, Any]: ...

    def judge(self, text: str) -> tuple[bool, Sequence[str]]: ...

    def ask_providers(self) -> tuple[bool, Sequence[str]]: ...


class SettingsFile:
    """The file of `checks`. `may_apply` tells whether a change may be written. Methods raise ReportError."""

    def __init__(self, checks: Checks, may_apply: Callable[[], bool]) -> None:
        self._checks = checks
        self._may_apply = may_apply

    def shown(self) -> Mapping[str, Any]:
        """The text as it stands, empty if it is too large to edit as a whole, and its digest."""
        text = self._read()
        small = len(text.encode()) <= SHOWN
        return {
            "file": str(self._checks.file),
            "text": text if small else "",
            "digest": _digest(text),
            "may_apply": self._may_apply(),
        }

    def change(
        self, digest: str, text: str | None, edits: Sequence[tuple[Sequence[str | int], Any]], *, apply: bool
    ) -> Mapping[str, Any]:
        """A change of the file with `digest`: to `text`, or of the values at some paths. Its difference, the verdict of
        `extproc check`, and whether it was written. The running gateway then takes it as any change of the file.
        """
        before = self._read()
        if digest != _digest(before):
            raise ReportError(409, "the file has changed since: look at it again")
        after = before if text is None else text
        try:
            for path, value in edits:
                after = with_value(after, path, value)
        except (ConfigError, ValueError) as error:
            raise ReportError(400, str(error)) from None
        loads, lines = self._checks.judge(after)
        if apply and loads:
            self._write(after)
        return {
            "text": after if len(after.encode()) <= SHOWN else "",
            "difference": difference(before, after, self._checks.file.name),
            "loads": loads,
            "lines": lines,
            "applied": apply and loads,
            "digest": _digest(after if apply and loads else before),
        }

    def ask_providers(self) -> Mapping[str, Any]:
        """One small request to each provider of the settings: whether all answered well, and a line for each."""
        well, lines = self._checks.ask_providers()
        return {"well": well, "lines": lines}

    def _read(self) -> str:
        try:
            with self._checks.file.open("rb") as file:
                content = file.read(MOST + 1)
            if len(content) > MOST:
                raise ReportError(409, "the file is larger than 4 MiB")
            return content.decode()
        except (OSError, UnicodeDecodeError):
            raise ReportError(503, "the settings file cannot be read") from None

    def _write(self, text: str) -> None:
        """Replace the file as a whole, so that no reader sees half of it; its mode and owner stay."""
        file = self._checks.file
        if not self._may_apply():
            raise ReportError(409, "changes are not written from here: admin.apply_settings is false")
        if file.is_symlink():
            raise ReportError(409, "the file is a link, as in a ConfigMap: change what it is made of")
        name = ""
        try:
            mode = file.stat()
            with tempfile.NamedTemporaryFile("wb", dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
                name = new.name
                new.write(text.encode())
                new.flush()
                os.fsync(new.fileno())
                os.fchmod(new.fileno(), mode.st_mode & 0o7777)
                if (mode.st_uid, mode.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(new.fileno(), mode.st_uid, mode.st_gid)
            Path(name).replace(file)
        except OSError as error:
            if name:
                Path(name).unlink(missing_ok=True)
            raise ReportError(409, f"the file cannot be written here: {error.strerror}") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
