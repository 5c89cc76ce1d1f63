"""Further models in a body, and the paths of their names at routers with several APIs.

Sources: https://openrouter.ai/docs/guides/routing/model-fallbacks (`models`, and `fallbacks` as in Anthropic's API),
https://openrouter.ai/docs/guides/features/server-tools/advisor, https://openrouter.ai/docs/guides/features/plugins
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extproc.dialects import token_count

EACH = "*"
"""Step of a path that stands for every item of a list."""
_INSTEAD = ("models", EACH)
ROUTERS = (
    _INSTEAD,
    ("fallbacks", EACH, "model"),
    ("tools", EACH, "parameters", "model"),
    ("plugins", EACH, "model"),
    ("plugins", EACH, "analysis_models", EACH),
)
DRAWS = "image_generation"
"""Type of OpenAI's tool that draws images."""
DRAWS_WITH = "gpt-image-1"
"""Assumed model of a drawing tool without one: the possible model with the highest token price.

Source: https://platform.openai.com/docs/guides/tools-image-generation
"""


@dataclass(slots=True, frozen=True)
class Named:
    """A further model in a request."""

    model: str
    calls: int | None = 1  # most calls; None: no limit in the request
    output: int | None = None  # most tokens of a call; None: no limit in the request
    instead: bool = False  # True: it answers in place of the request's model, and only one of the two is paid
    draws: bool = False
    told: bool = True  # False: the provider chooses the model


def named_in(body: Mapping[str, Any], places: Sequence[Sequence[str]]) -> Iterator[Named]:
    """Models at `places` of a body (`Fields.models`). Accepts any body and never raises."""
    for place in places:
        if place[0] in body:
            yield from _at(body, place, {}, instead=place[-2:] == _INSTEAD, calls=None if "tools" in place else 1)


def _at(
    value: Any, place: Sequence[str], holder: Mapping[str, Any], *, instead: bool, calls: int | None
) -> Iterator[Named]:
    """Models in `value` at the remaining `place`, a path. `value` is below the object `holder`."""
    if not place:
        if isinstance(value, str) and value:
            yield Named(
                value,
                calls if calls is not None else token_count(holder.get("max_uses")),
                token_count(holder.get("max_tokens")),
                instead,
                holder.get("type") == DRAWS,
            )
    elif place[0] == EACH:
        for item in value if isinstance(value, list) else ():
            yield from _at(item, place[1:], holder, instead=instead, calls=calls)
    elif isinstance(value, Mapping):
        if place[0] in value:
            yield from _at(value[place[0]], place[1:], value, instead=instead, calls=calls)
        elif place == ("model",) and value.get("type") == DRAWS:
            yield Named(DRAWS_WITH, None, draws=True, told=False)


_GONE = object()


def without(body: Mapping[str, Any], places: Sequence[Sequence[str]], models: Collection[str]) -> dict[str, Any]:
    """New values of top-level fields of `body` that name none of `models` at `places`; None removes the field. The item
    of a list that names a model goes whole.
    """
    changed: dict[str, Any] = {}
    for place in places:
        value = changed.get(place[0], body.get(place[0]))
        if value is not None and (left := _without(value, place[1:], models)) is not value:
            changed[place[0]] = None if left is _GONE else left
    if "tools" in changed and changed["tools"] is None and "tool_choice" in body:  # a choice needs tools
        changed["tool_choice"] = None
    return changed


def _without(value: Any, place: Sequence[str], models: Collection[str]) -> Any:
    """`value` without models at `place`; `_GONE` if it names one itself or nothing is left of it."""
    if not place:
        return _GONE if isinstance(value, str) and value in models else value
    if place[0] == EACH and isinstance(value, list):
        left = [kept for item in value if (kept := _without(item, place[1:], models)) is not _GONE]
        return value if left == value else left or _GONE
    if place[0] == EACH or not isinstance(value, dict) or place[0] not in value:
        return value
    inner = _without(value[place[0]], place[1:], models)
    return value if inner is value[place[0]] else _GONE if inner is _GONE else {**value, place[0]: inner}
