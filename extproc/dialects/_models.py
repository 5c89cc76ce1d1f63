"""Facts about models that no API reports, by model name, from `_models.yaml`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec.structs import replace

from extproc.words.messages import Effort

_BEHIND_A_PUBLISHER = "(?:^|[/.@])"
_FIRST = r"\A"


class Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models whose names match the regular expression `name`."""

    name: str = ""


class WithLevels(Named, frozen=True, kw_only=True):
    levels: Sequence[Effort]


class WithOutput(Named, frozen=True, kw_only=True):
    tokens: int


class Ending(Named, frozen=True, kw_only=True):
    """Models whose provider announced their last day. `kind` is the kind of the provider."""

    kind: str
    deprecated: dt.date | None = None
    retires: dt.date
    successor: str = ""


class Gemini(Named, frozen=True, kw_only=True):
    """A Gemini model. `least` and `most` are the range of its thinking budget."""

    thinking: Literal["", "budget", "level"] = ""
    off: bool = False  # True: thinking can be turned off, or down to the level MINIMAL
    least: int = 0
    most: int = 0
    penalties: bool = False
    signed_calls: bool = False  # True: a tool call needs its thought signature
    media_results: bool = False  # True: tool results may hold images and files
    json_beside_tools: bool = True  # True: a JSON answer may be required beside tools

    @property
    def known(self) -> bool:
        """True for a listed model: an empty `thinking` then means that it cannot think."""
        return bool(self.name)


class Traits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters that a Claude model accepts."""

    manual: bool = True  # True: thinking with a budget
    adaptive: bool = False  # True: thinking as much as the model decides, steered by the effort
    default_on: bool = False  # True: it thinks unless a request turns it off
    off: str = "disabled"  # type of `thinking` that turns it off; empty: it cannot be turned off
    off_caps_effort: bool = False  # True: without thinking, effort is at most high
    xhigh: str = "xhigh"  # name of the highest effort to ask for
    sampling: bool = True  # True: accepts temperature, top_p, top_k
    one_of_sampling: bool = True  # True: accepts temperature or top_p, not both
    forced_tools: bool = True
    display: bool = True  # True: a request can show or hide the thinking
    strict: bool = True  # True: accepts strict tools
    known: bool = True  # False: an assumption about a model newer than the list


N = TypeVar("N", bound=Named)


class _List(msgspec.Struct, Generic[N], frozen=True, forbid_unknown_fields=True):
    sources: Sequence[str]
    models: Sequence[N]

    def find(self, name: str, before: str) -> N | None:
        """The first entry whose pattern matches `name` behind the pattern `before`."""
        return next((each for each in self.models if re.search(f"{before}(?:{each.name})", name)), None)


class _Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    below: tuple[int, int]
    traits: Traits


class _Claude(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sources: Sequence[str]
    families: frozenset[str]
    others: Traits
    preview: Traits
    generations: Sequence[_Generation]
    models: Mapping[str, Traits]  # traits by family and version: `opus 5.0`
    newest: Traits


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    date: dt.date
    levels: _List[WithLevels]
    unasked: _List[Named]
    searching: _List[Named]
    most_output: _List[WithOutput]
    ending: _List[Ending]
    claude: _Claude
    gemini: _List[Gemini]
    cohere: _List[Named]


@cache
def facts() -> _File:
    """Content of `_models.yaml`."""
    return msgspec.yaml.decode(Path(__file__).with_name("_models.yaml").read_bytes(), type=_File)


def _own_name(model: str) -> str:
    """The name without a publisher or a prefix such as `models/`."""
    return model.rpartition("/")[2].lower()


@lru_cache(maxsize=4096)
def levels(model: str) -> tuple[Effort, ...] | None:
    """The model's levels of thinking, lowest first; empty: it does not reason; None: unknown."""
    found = facts().levels.find(_own_name(model), _FIRST)
    return None if found is None else tuple(found.levels)


def thinks_unasked(model: str) -> bool:
    """True for models that think by default and hide it, or show only a summary. Claude is not among them."""
    return facts().unasked.find(model.lower(), _BEHIND_A_PUBLISHER) is not None


@lru_cache(maxsize=4096)
def searches(model: str) -> bool:
    """True for a model whose input may exceed the request, because it searches, and whose output may include several
    steps.
    """
    return facts().searching.find(model.lower(), _BEHIND_A_PUBLISHER) is not None


@lru_cache(maxsize=4096)
def known_output(model: str) -> int | None:
    """Most tokens that a model writes, by its provider's name for it; None: unknown."""
    found = facts().most_output.find(model.lower(), _BEHIND_A_PUBLISHER)
    return None if found is None else found.tokens


@lru_cache(maxsize=4096)
def known_end(kind: str, model: str) -> Ending | None:
    """The announced end of a model at its own provider, by the provider's kind; None: none is known."""
    name = _own_name(model)
    return next((one for one in facts().ending.models if one.kind == kind and re.fullmatch(one.name, name)), None)


@lru_cache(maxsize=256)
def gemini(model: str) -> Gemini:
    """Abilities of a Gemini model."""
    return facts().gemini.find(_own_name(model), _FIRST) or Gemini()


@lru_cache(maxsize=256)
def cohere_reasons(model: str) -> bool:
    """True for Cohere's thinking models, and for unknown names."""
    return facts().cohere.find(_own_name(model), _FIRST) is None


@lru_cache(maxsize=256)
def traits_of(model: str) -> Traits:
    """Traits of a Claude model, by its name in any provider's spelling. An unknown Claude gets the strictest traits."""
    claude, words = facts().claude, re.split(r"[^a-z0-9]+", model.lower())
    if "claude" not in words:
        return claude.others
    words = words[words.index("claude") + 1 :]
    family = next((word for word in words if word in claude.families), "")
    if family == "mythos" and "preview" in words:
        return claude.preview
    numbers = [int(word) for word in takewhile(_no_revision, words) if word.isdigit() and len(word) <= 2]
    unknown = replace(claude.newest, known=False)
    if not numbers:
        return unknown
    major, minor = numbers[0], numbers[1] if len(numbers) > 1 else 0
    for generation in claude.generations:
        if (major, minor) < generation.below:
            return generation.traits
    return claude.models.get(f"{family} {major}.{minor}", claude.newest if family and major == 5 else unknown)


def _no_revision(word: str) -> bool:
    return not (word.startswith("v") and word[1:].isdigit())
