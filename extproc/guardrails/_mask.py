"""Replacements of masked text, and the reversal of reversible ones."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from extproc.guardrails._base import Detector, Finding, GuardrailSettings

_HASHED = 10  # hexadecimal digits of a hash
_SHOWN = 4  # characters of the text shown at the end of a partial replacement
_LONGEST_PLACEHOLDER = 88
_placeholder = re.compile(r"<[A-Z0-9_]{1,64}_\d{1,6}>").finditer
# A placeholder in the spellings of models: in lower case, escaped for HTML, or in capitals without its brackets.
_written = re.compile(r"(?:<|&lt;)([A-Za-z0-9_]{1,64}_\d{1,6})(?:>|&gt;)|\b([A-Z0-9_]{1,64}_\d{1,6})\b").finditer
_may_begin = re.compile(
    r"(?:(?:<|&lt;)[A-Za-z0-9_]{0,71}(?:>|&(?:g(?:t;?)?)?)?|&(?:l(?:t?)?)?|[A-Z0-9_]{1,71})\Z"
).search
_random_key = os.urandom(32)


@lru_cache(maxsize=4096)
def label_of(kind: str) -> str:
    """The label that stands for a kind of finding in text: `EMAIL`. Letters, digits and underscores, which need no
    escapes.
    """
    return re.sub(r"[^A-Z0-9]+", "_", kind.upper())[:48].strip("_") or "MASKED"


class Vault:
    """The texts behind the placeholders of one exchange. `taken` are placeholders that the client wrote itself."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.kept: dict[str, str] = {}
        self._of: dict[tuple[str, str], str] = {}
        self._numbers: dict[str, int] = {}
        self._taken = frozenset(match[0] for text in taken if "<" in text for match in _placeholder(text))

    def placeholder(self, label: str, text: str) -> str:
        """The placeholder of a text, such as `<EMAIL_1>`: equal for equal texts."""
        found = self._of.get((label, text))
        while found is None:
            number = self._numbers[label] = self._numbers.get(label, 0) + 1
            if (new := f"<{label}_{number}>") not in self._taken:
                found = self._of[label, text] = new
                self.kept[new] = text
        return found


class Hash:
    """Keyed hashes of the texts that a guardrail finds: equal for equal texts, and irreversible."""

    def __init__(self, settings: GuardrailSettings) -> None:
        key = settings.hash_key.read() if settings.hash_key is not None else None
        self._key = _random_key if key is None else key.encode()

    def __call__(self, found: str) -> str:
        return hmac.digest(self._key, found.encode(errors="replace"), "sha256").hex()[:_HASHED]


class Mask:
    """Replaces the findings of one guardrail."""

    def __init__(self, settings: GuardrailSettings) -> None:
        self._style = settings.style
        self._hash = Hash(settings)

    @property
    def reversible(self) -> bool:
        return self._style == "reversible"

    def __call__(self, kind: str, found: str, vault: Vault | None = None) -> str:
        """The replacement of `found`. A reversible one needs the vault of the exchange."""
        label = label_of(kind)
        if self._style == "hash":
            return f"[{label}:{self._hash(found)}]"
        if self._style == "partial":
            letters = [letter for letter in found if letter.isascii() and letter.isalnum()]
            shown = "".join(letters[len(letters) - min(_SHOWN, len(letters) // 4) :])
            return f"[{label}:{shown}]" if shown else f"[{label}]"
        if self._style == "reversible" and vault is not None:
            return vault.placeholder(label, found)
        return f"[{label}]"


class Restore(Detector):
    """Finds the placeholders of one exchange in its answer."""

    max_match = _LONGEST_PLACEHOLDER

    def __init__(self, kept: Mapping[str, str]) -> None:
        self._kept = kept

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        if "_" not in text:
            return ()
        found = ((f"<{(match[1] or match[2]).upper()}>", match.span()) for match in _written(text))
        return [Finding(name, span) for name, span in found if name in self._kept]

    def hold(self, text: str) -> int:
        match = _may_begin(text[-_LONGEST_PLACEHOLDER:])
        return len(match[0]) if match else 0
