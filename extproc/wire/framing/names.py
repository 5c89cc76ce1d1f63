"""Names of the fields of a JSON object, and other spellings of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from extproc.words.errors import INVALID_REQUEST, Refusal

_MOST_MET = 1000  # most unknown field names remembered as harmless
_LONGEST_MET = 64  # most characters of a remembered name


class Names:
    """Field names that a request must not spell in another way.

    Servers written in Go match names without regard to case and take the last: with `{"model": "m", "Model": "n"}` the
    client would get another model than it was authorised and charged for. `dropped` are known names that are not
    forwarded.
    """

    def __init__(self, known: Collection[str], dropped: Collection[str] = ()) -> None:
        self._known = frozenset(known)
        self._folded = {fold(name): name for name in known}
        # Harmless names: known ones that are forwarded, and unknown ones without a twin.
        self._usual = set(self._known.difference(dropped))

    def usual(self, names: Iterable[str]) -> bool:
        """True when every name is known and forwarded, or harmless. Otherwise `check` decides."""
        return self._usual.issuperset(names)

    def twin(self, names: Iterable[str]) -> str | None:
        """The known name that one of `names` is another spelling of; None without one."""
        known, usual = self._known, self._usual
        for name in names:
            if name in usual or name in known:
                continue
            if (meant := self._folded.get(fold(name))) is not None:
                return meant
            if len(usual) < _MOST_MET and len(name) <= _LONGEST_MET:
                usual.add(name)
        return None

    def check(self, names: Iterable[str]) -> None:
        """Refuse a name that spells a known one in another way: Refusal (400)."""
        if (meant := self.twin(names)) is not None:
            message = f"The body has a field that some servers take for {meant!r}: write {meant!r}."
            raise Refusal(INVALID_REQUEST, message, param=meant)

    def refuse(self, body: Mapping[str, Any], where: str) -> None:
        """Refuse one of the names in an object that some servers merge into the body: Refusal (400)."""
        for name in body:
            if (meant := self._folded.get(fold(name))) is not None:
                message = f"{where} has the field {meant!r}, which some servers take for the body's own."
                raise Refusal(INVALID_REQUEST, message, param=meant)


def fold(name: str) -> str:
    """One form for names that differ only in case or in compatible letters: U+017F is an s, U+212A a k."""
    return (name if name.isascii() else unicodedata.normalize("NFKC", name)).casefold()
