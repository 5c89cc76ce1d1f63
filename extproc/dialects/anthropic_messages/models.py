"""Abilities of Claude models, by name.

Generations differ: up to 4.5 a request gives a budget of tokens, since 4.7 only a level of effort; since 4.7 there are
no sampling parameters; some always think, and some cannot be made to call a tool.

Source: https://platform.claude.com/docs/en/build-with-claude/thinking-troubleshooting (configurations each model
rejects), and the migration guides of each model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from re import split


@dataclass(slots=True, frozen=True)
class Traits:
    """Parameters that a model accepts."""

    manual: bool = True  # thinking with a budget
    adaptive: bool = False  # thinking as much as the model decides, steered by the effort
    default_on: bool = False  # True: it thinks unless a request turns it off
    off: str = "disabled"  # the type of thinking that turns it off, empty where there is none
    off_caps_effort: bool = False  # effort is at most high without thinking
    xhigh: str = "xhigh"  # the name of the highest effort to ask for
    sampling: bool = True  # temperature, top_p, top_k
    one_of_sampling: bool = True  # temperature or top_p, not both
    forced_tools: bool = True
    display: bool = True  # a request can say whether to show the thinking
    strict: bool = True  # strict tools
    known: bool = True  # False: a guess at a model that is newer than this list


_OTHERS = Traits(one_of_sampling=False, display=False, strict=False)  # models that are not Claude, behind the same API
_BUDGETS_ONLY = Traits()  # 3.7 to 4.5
_THOUGHTLESS = Traits(manual=False)  # before 3.7
_EITHER = Traits(adaptive=True, xhigh="max")  # 4.6
_ADAPTIVE = Traits(manual=False, adaptive=True, sampling=False)  # 4.7, 4.8
_ON = replace(_ADAPTIVE, default_on=True)  # 5
_ALWAYS = replace(_ON, off="")
_NEWEST = replace(_ALWAYS, forced_tools=False)  # 5.1, 5.5
_UNKNOWN = replace(_NEWEST, known=False)
_FAMILIES = frozenset(("opus", "sonnet", "haiku", "fable", "mythos", "instant"))
_KNOWN = {
    ("opus", 5, 0): replace(_ON, off_caps_effort=True),
    ("sonnet", 5, 0): _ON,
    ("fable", 5, 0): _ALWAYS,
    ("mythos", 5, 0): _ALWAYS,
    ("sonnet", 5, 5): replace(_ON, off="between_tools", off_caps_effort=True, forced_tools=False),
    ("haiku", 5, 5): replace(_ON, off_caps_effort=True),
}


@lru_cache(maxsize=256)
def traits_of(model: str) -> Traits:
    """The traits of a model, by its name in any provider's spelling. An unknown Claude is taken for the strictest."""
    words = split(r"[^a-z0-9]+", model.lower())
    if "claude" not in words:
        return _OTHERS
    words = words[words.index("claude") + 1 :]
    family = next((word for word in words if word in _FAMILIES), "")
    if family == "mythos" and "preview" in words:
        return replace(_EITHER, default_on=True, off="", sampling=False)
    numbers = [int(word) for word in takewhile(_no_revision, words) if word.isdigit() and len(word) <= 2]
    if not numbers:
        return _UNKNOWN
    major, minor = numbers[0], numbers[1] if len(numbers) > 1 else 0
    if (major, minor) < (3, 7):
        return _THOUGHTLESS
    if (major, minor) <= (4, 5):
        return _BUDGETS_ONLY
    if (major, minor) == (4, 6):
        return _EITHER
    if major == 4:
        return _ADAPTIVE
    newest = _NEWEST if family and major == 5 else _UNKNOWN
    return _KNOWN.get((family, major, minor), newest)


def _no_revision(word: str) -> bool:
    return not (word.startswith("v") and word[1:].isdigit())
