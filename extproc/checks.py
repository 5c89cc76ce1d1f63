"""What a filter YAML says that cannot be, and what it says that is probably not meant.

`contradictions` refuse the file; `doubts` are the lints of `extproc check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from extproc.parameters import MAX_CHANGES, Changes, compile_changes, compose, encode
from extproc.routing import MAX_NESTING, MAX_TARGETS, Catalog, VirtualModelSettings
from extproc.values import is_private

if TYPE_CHECKING:
    from extproc.config import Settings

Place = tuple[str | int, ...]
"""The keys that lead to a setting."""

_Doubt = tuple[Place, str]


def contradictions(settings: Settings) -> Iterator[_Doubt]:
    """What each key alone cannot know: references that lead nowhere, names given twice, ports that collide."""
    for name, model in settings.models.items():
        if model.provider not in settings.providers:
            yield ("models", name, "provider"), f"there is no provider {model.provider!r}"
        if name.count("*") > 1:
            yield ("models", name), "at most one * can stand in a name"
    yield from _virtual_contradictions(settings)
    yield from _consumer_contradictions(settings)
    for section in ("budgets", "guardrails"):
        yield from _repeated((section, "name"), [entry.name for entry in getattr(settings, section)])
    doors = {"listener": settings.listener.port, "status": settings.status.port, "admin": settings.admin.port}
    taken: dict[int, str] = {}
    for name, port in doors.items():
        if port in taken:
            yield (name, "port"), f"port {port} is the {taken[port]}'s too"
        taken.setdefault(port, name)


def _virtual_contradictions(settings: Settings) -> Iterator[_Doubt]:
    known = Catalog({}, settings.models, {})
    virtual_models = settings.virtual_models
    whole = True
    for name, virtual in virtual_models.items():
        if name in settings.models:
            yield ("virtual_models", name), "this name is in models too"
        if "*" in name:
            yield ("virtual_models", name), "a virtual model's name has no *"
        for index, target in enumerate(virtual.targets):
            where: Place = ("virtual_models", name, "targets", index)
            if target.model in virtual_models:
                if target.tries > 1:
                    yield (*where, "tries"), "several tries are for a model, not for a virtual model"
            elif known.target(target.model) is None:
                whole = False
                yield (*where, "model"), f"there is no model {target.model!r} in models or virtual_models"
    for name in virtual_models:
        if (circle := _circle(name, virtual_models)) is not None:
            whole = False
            yield ("virtual_models", name), f"leads back to itself: {' → '.join(circle)}"
    if whole:
        for name in virtual_models:
            yield from _size_contradictions(name, virtual_models)


def _circle(name: str, virtual_models: Mapping[str, VirtualModelSettings]) -> Sequence[str] | None:
    """The way from a virtual model back to it, or None. Whoever only leads into a circle is not reported."""
    seen: set[str] = set()
    paths: list[tuple[str, ...]] = [(name,)]
    while paths:
        path = paths.pop()
        for target in virtual_models[path[-1]].targets:
            if target.model == name:
                return (*path, name)
            if target.model in virtual_models and target.model not in seen:
                seen.add(target.model)
                paths.append((*path, target.model))
    return None


def _size_contradictions(name: str, virtual_models: Mapping[str, VirtualModelSettings]) -> Iterator[_Doubt]:
    where, count = ("virtual_models", name), 0
    stack: list[tuple[str, int, Changes]] = [(name, 1, ())]
    while stack:
        virtual, depth, around = stack.pop()
        if depth > MAX_NESTING:
            yield where, f"virtual models are nested deeper than {MAX_NESTING}"
            return
        for target in virtual_models[virtual].targets:
            changes = compose(around, compile_changes(target.override, target.default, target.remove))
            if target.model in virtual_models:
                stack.append((target.model, depth + 1, changes))
                continue
            count += 1
            if count > MAX_TARGETS:
                yield where, f"leads to more than {MAX_TARGETS} targets"
                return
            if (size := len(encode(changes))) > MAX_CHANGES:
                yield where, f"the changes on the way to {target.model!r} are {size} bytes, at most {MAX_CHANGES} fit"


def _consumer_contradictions(settings: Settings) -> Iterator[_Doubt]:
    yield from _repeated(("consumers", "name"), [consumer.name for consumer in settings.consumers])
    for index, consumer in enumerate(settings.consumers):
        if consumer.team is not None and consumer.team not in settings.teams:
            yield ("consumers", index, "team"), f"there is no team {consumer.team!r} in teams"
        if consumer.name == "anonymous":
            yield ("consumers", index, "name"), "this name is for requests without a key"
        for number, key in enumerate(consumer.keys):
            if key.hash is not None and settings.auth.key_secret is None:
                yield ("consumers", index, "keys", number), "a hash needs auth.key_secret, which made it"
    secret = settings.auth.key_secret
    if secret is not None and secret.read() is None:
        yield ("auth", "key_secret"), f"{secret} is not set"


def _repeated(path: tuple[str, str], names: Sequence[str]) -> Iterator[_Doubt]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield (path[0], index, path[1]), f"the name {name!r} was given before"


def doubts(settings: Settings) -> Iterator[_Doubt]:
    for name, provider in settings.providers.items():
        if provider.lacks_key:
            missing = f"{provider.api_key} is not set" if provider.api_key else "has no api_key"
            yield ("providers", name), f"{missing}: its models answer 503 until it is"
        if provider.url.scheme == "http" and not is_private(provider.url.hostname or ""):
            yield ("providers", name, "base_url"), "is not encrypted: keys and prompts can be read on the way"
        if not any(model.provider == name for model in settings.models.values()):
            yield ("providers", name), "no model uses it"
    if settings.auth.required and not any(consumer.keys for consumer in settings.consumers):
        yield ("consumers",), "nobody has a key and auth.required is on: every request is refused"
    for index, consumer in enumerate(settings.consumers):
        for number, key in enumerate(consumer.keys):
            if key.secret is not None and key.secret.read() is None:
                yield ("consumers", index, "keys", number), f"{key.secret} is not set: this key opens nothing"
    names = {consumer.name for consumer in settings.consumers} | {"anonymous"}
    for index, budget in enumerate(settings.budgets):
        who = budget.match.get("consumer")
        if who is not None and "*" not in who and who not in names:
            yield ("budgets", index, "match", "consumer"), f"there is no consumer {who!r}: it never applies"
        team = budget.match.get("team")
        if team is not None and "*" not in team and team not in settings.teams:
            yield ("budgets", index, "match", "team"), f"there is no team {team!r}: it never applies"
        if budget.store_failure == "allow":
            yield ("budgets", index, "store_failure"), "while the store is down this budget limits nothing"
