"""Names of the fields of a JSON object, and other spellings of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from extproc.words.errors import INVALID_REQUEST, Refusal

_MOST_MET = 1000  # names of fields that are remembered as harmless
_LONGEST_MET = 64  # characters of such a name


class Names:
    """Names of fields that must not stand in a request in another spelling.

    Servers written in Go match names without regard to case and take the last: with `{"model": "m", "Model": "n"}` the
    client would get another model than it was authorised and charged for. `dropped` are known names that are not
    forwarded.
    """

    def __init__(self, known: Collection[str], dropped: Collection[str] = ()) -> None:
        self._known = frozenset(known)
        self._folded = {fold(name): name for name in known}
        self._usual = set(self._known.difference(dropped))  # names of which nothing is to be said, those met included

    def usual(self, names: Iterable[str]) -> bool:
        """True where every name is known and goes to providers. Otherwise `check` tells more."""
        return self._usual.issuperset(names)

    def twin(self, names: Iterable[str]) -> str | None:
        """The known name that one of `names` spells otherwise; None where none does."""
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
        """Raises Refusal (400)."""
        if (meant := self.twin(names)) is not None:
            message = f"The body has a field that some servers take for {meant!r}: write {meant!r}."
            raise Refusal(INVALID_REQUEST, message, param=meant)

    def refuse(self, body: Mapping[str, Any], where: str) -> None:
        """Raises Refusal (400) where an object that some servers spread over the body has one of the names."""
        for name in body:
            if (meant := self._folded.get(fold(name))) is not None:
                message = f"{where} has the field {meant!r}, which some servers take for the body's own."
                raise Refusal(INVALID_REQUEST, message, param=meant)


def fold(name: str) -> str:
    """The same for all names that differ in case or in compatible forms of letters: U+017F is an s, U+212A a k."""
    return (name if name.isascii() else unicodedata.normalize("NFKC", name)).casefold()
