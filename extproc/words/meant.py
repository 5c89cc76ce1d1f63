"""The name that was probably meant in place of an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(name: str, names: Iterable[str]) -> str:
    """The question for the nearest of `names`, or nothing: `did you mean 'gcp_gemini'?` for `gemini`."""
    known = {each.lower(): each for each in names}
    word = name.lower()
    near = [word] if word in known else [each for each in known if len(word) > 2 and word in each.split("_")]
    near = near or difflib.get_close_matches(word, known, 1, cutoff=0.65)
    return f"did you mean '{known[near[0]]}'?" if near else ""
