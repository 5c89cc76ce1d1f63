"""Contradictions and lints of the filter YAML.

`contradictions` refuse the file; `doubts` are the lints of `extproc check`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from extproc.access.auth import ANONYMOUS, Access
from extproc.dialects import by_path, fields_that_ask_for
from extproc.dialects._thinkers import unlisted
from extproc.guardrails import RemoteSettings
from extproc.money.ledger import doubt_ledger
from extproc.money.texts import LEAST_SECRET, TextKeys
from extproc.routing.catalog import MAX_NESTING, MAX_TARGETS, Catalog
from extproc.routing.parameters import MAX_CHANGES, compile_changes, compose, encode
from extproc.routing.settings import VirtualModelSettings
from extproc.settings.checks import auth as auth_checks
from extproc.settings.checks import budgets as budget_checks
from extproc.settings.checks import cache as cache_checks
from extproc.settings.checks import listener as listener_checks
from extproc.settings.checks import mcp as mcp_checks
from extproc.settings.document import Found, KeyPath
from extproc.stores import doubt_counters
from extproc.upstream.credentials.oauth import problem
from extproc.upstream.prices import PriceBook
from extproc.wire.transport import workers
from extproc.words.chain import Branch, Chain
from extproc.words.dialect import ABILITIES
from extproc.words.exchange import Changes, Target
from extproc.words.values import Secret, is_offline, is_private, meant

if TYPE_CHECKING:
    from extproc.settings.config import Settings
    from extproc.upstream.providers import ProviderSettings

_PATHS = tuple(path.removeprefix("/v1") for path in by_path() if path.startswith("/v1/") and "{" not in path)
"""Paths of operations, which follow the `base_url` of a provider."""


def contradictions(settings: Settings) -> Iterator[Found]:
    """Errors between keys: references to nothing, names given twice, ports that collide."""
    for name, model in settings.models.items():
        if model.provider not in settings.providers:
            yield ("models", name, "provider"), _missing("provider", model.provider, settings.providers)
        elif model.api is not None and model.api not in (known := settings.providers[model.provider].provider.dialects):
            yield ("models", name, "api"), f"provider {model.provider!r} serves {', '.join(known)}"
        if name.count("*") > 1:
            yield ("models", name), "a name has at most one *"
    for section in ("providers", "models"):
        if not getattr(settings, section) and (settings.mcp is None or settings.providers):
            yield (section,), "this setting is required"
    if settings.stores.object_key is not None and settings.stores.object_key.read_or_last() is None:
        yield ("stores", "object_key"), f"{settings.stores.object_key} is not set"
    yield from cache_checks.contradictions(settings)
    yield from mcp_checks.contradictions(settings)
    yield from _worker_contradictions(settings)
    yield from _virtual_contradictions(settings)
    yield from auth_checks.contradictions(settings)
    yield from budget_checks.contradictions(settings)
    for index, guardrail in enumerate(settings.guardrails):
        if isinstance(guardrail, RemoteSettings):
            for key, message in guardrail.problems(settings.around_guardrails):
                yield ("guardrails", index, key), message
    for section in ("budgets", "guardrails"):
        yield from _repeated((section, "name"), [entry.name for entry in getattr(settings, section)])
    doors = {"listener": settings.listener.port, "status": settings.status.port, "admin": settings.admin.port}
    taken: dict[int, str] = {}
    for name, port in doors.items():
        if port in taken:
            yield (name, "port"), f"port {port} is already the port of {taken[port]}"
        taken.setdefault(port, name)


def _worker_contradictions(settings: Settings) -> Iterator[Found]:
    """Contradictions of several workers with stores in memory, which belong to one process."""
    if settings.processor.workers == 1:
        return
    if settings.stores.counters == "memory:" and settings.budgets:
        yield ("stores", "counters"), "memory: counts in each worker alone: use sqlite: or redis:"
    if settings.stores.ledger == "memory:":
        yield ("stores", "ledger"), "memory: has the rows of one worker alone: use sqlite: or postgresql:"


def _worker_doubts(settings: Settings) -> Iterator[Found]:
    """Lints of several workers in settings for another machine: containers start a worker for each core."""
    if not is_offline() or "workers" in settings.processor.model_fields_set or os.environ.get(workers.VARIABLE):
        return
    if "memory:" in (settings.stores.counters, settings.stores.ledger) or settings.processor.address is not None:
        return  # every machine starts one worker
    several = settings.model_copy(update={"processor": settings.processor.model_copy(update={"workers": 2})})
    for check in (cache_checks.contradictions, mcp_checks.contradictions):
        known = set(check(settings))
        for where, message in check(several):
            if (where, message) not in known:
                yield where, f"refused where there are several workers, as in Kubernetes and compose: {message}"


def _virtual_contradictions(settings: Settings) -> Iterator[Found]:
    known = Catalog({}, settings.models, {})
    virtual_models = settings.virtual_models
    whole = True
    for name, virtual in virtual_models.items():
        if name in settings.models:
            yield ("virtual_models", name), "models has an entry of this name too"
        if "*" in name:
            yield ("virtual_models", name), "the name of a virtual model cannot contain *"
        if (shadow := virtual.shadow) is not None:
            where_shadow: KeyPath = ("virtual_models", name, "shadow")
            if shadow.model not in virtual_models and known.target(shadow.model) is None:
                yield (*where_shadow, "model"), _missing("model", shadow.model, [*settings.models, *virtual_models])
            if shadow.model == name:
                yield (*where_shadow, "model"), "a shadow is another model"
            if shadow.consumer not in {entry.name for entry in settings.consumers}:
                yield (*where_shadow, "consumer"), f"there is no consumer {shadow.consumer!r}"
        if virtual.canary is not None:
            for field in ("target", "against"):
                if getattr(virtual.canary, field) in virtual_models:
                    yield ("virtual_models", name, "canary", field), "must be a model, not a virtual model"
        for index, target in enumerate(virtual.targets):
            where: KeyPath = ("virtual_models", name, "targets", index)
            if target.model in virtual_models:
                if target.tries > 1:
                    yield (*where, "tries"), "only a model can have several tries, not a virtual model"
            elif known.target(target.model) is None:
                whole = False
                names = [*settings.models, *virtual_models]
                yield (*where, "model"), _missing("model", target.model, names, " in models or virtual_models")
    for name in virtual_models:
        if (circle := _circle(name, virtual_models)) is not None:
            whole = False
            yield ("virtual_models", name), f"leads back to itself: {' → '.join(circle)}"
    if whole:
        for name in virtual_models:
            yield from _size_contradictions(name, virtual_models)


def _circle(name: str, virtual_models: Mapping[str, VirtualModelSettings]) -> Sequence[str] | None:
    """The path from a virtual model back to itself, or None. A model that only leads into a circle is not reported."""
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


def _size_contradictions(name: str, virtual_models: Mapping[str, VirtualModelSettings]) -> Iterator[Found]:
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
                yield where, f"the changes for {target.model!r} have {size} bytes of JSON, at most {MAX_CHANGES}"


def _missing(noun: str, name: str, names: Iterable[str], where: str = "") -> str:
    hint = meant(name, names)
    return f"there is no {noun} {name!r}{where}{f'; {hint}' if hint else ''}"


def _repeated(path: tuple[str, str], names: Sequence[str]) -> Iterator[Found]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield (path[0], index, path[1]), f"another entry has the name {name!r}"
        seen.add(name)


def doubts(settings: Settings) -> Iterator[Found]:
    """Lints of settings without contradictions. Never raises."""
    yield from _doubts_alone(settings)
    yield from _worker_doubts(settings)
    if settings.foreign_objects == "allow":
        yield ("foreign_objects",), "a consumer that knows the id of another's object can use it: list the ids instead"
    for index, guardrail in enumerate(settings.guardrails):
        if guardrail.failure == "open" and guardrail.action in ("block", "ask", "mask"):
            yield ("guardrails", index, "failure"), "text passes unchecked when the guardrail fails"
        if not isinstance(guardrail, RemoteSettings):
            continue
        for key, value in guardrail:
            if isinstance(value, Secret) and value.read() is None:
                yield ("guardrails", index, key), f"{value} cannot be read: the guardrail fails"
        for key, message in guardrail.doubts():
            yield ("guardrails", index, key), message
        url = urlsplit(getattr(guardrail, "url", None) or "")
        if url.scheme == "http" and not is_private(url.hostname or ""):
            yield ("guardrails", index, "url"), "http:// is not encrypted: others on the network can read the text"
    if settings.record is not None and not TextKeys(settings.record.keys).able:
        short = f"{settings.record.keys[0]} is not set, or has fewer than {LEAST_SECRET} characters"
        yield ("record", "keys"), f"{short}: nothing is recorded"
    prices = PriceBook(settings.prices)
    catalog = Catalog(settings.providers, settings.models, settings.virtual_models, prices=prices)
    yield from _effort_doubts(settings, catalog)
    yield from _end_doubts(settings, catalog)
    yield from _grant_doubts(settings, catalog)
    yield from _budget_doubts(settings, catalog)
    parts = {target.model for virtual in settings.virtual_models.values() for target in virtual.targets}
    for name, virtual in settings.virtual_models.items():
        where: KeyPath = ("virtual_models", name)
        yield from _share_doubts(where, virtual)
        chain = catalog.resolve(name)
        if chain is None or chain.root is None:
            continue
        groups = [_leaves(below, catalog) for below in chain.root.below]
        yield from _ability_doubts(where, groups)
        if "cost" in virtual.strategy:
            yield from _price_doubts(where, groups)
        if virtual.strategy == ("fallback",):
            yield from _attempt_doubts(where, groups, chain)
        if name not in parts:  # a virtual model within another may have one provider
            yield from _provider_doubts(where, groups, in_order=virtual.strategy[0] == "fallback")


def _effort_doubts(settings: Settings, catalog: Catalog) -> Iterator[Found]:
    """Lints of models with unknown levels of thinking, if requests name levels."""
    for name, model in settings.models.items():
        target = catalog.target(name)
        if target is None or (target.supports is not None and "reasoning" not in target.supports):
            continue
        api = model.api or settings.providers[model.provider].provider.preferred(target.model)[0]
        if api in ("openai_chat", "openai_responses") and unlisted(target.model):
            text = "its levels of thinking are not known: translated requests get low, medium or high"
            yield ("models", name), f"{text}; `supports` without `reasoning` leaves them out"


def _end_doubts(settings: Settings, catalog: Catalog) -> Iterator[Found]:
    """Lints of models that their provider soon stops to serve."""
    for name in settings.models:
        target, today = catalog.target(name), catalog.prices.today
        if target is None or target.facts.notice(today) is None:
            continue
        facts, gone = target.facts, target.facts.retires is not None and target.facts.retires <= today
        instead = f": its provider recommends {facts.successor}" if facts.successor else ""
        yield ("models", name), f"{target.model} {'was retired' if gone else 'retires'} on {facts.retires}{instead}"


def _doubts_alone(settings: Settings) -> Iterator[Found]:
    """Lints of single entries."""
    for doubt in doubt_ledger(settings.stores.ledger):
        yield ("stores", "ledger"), doubt
    yield from listener_checks.doubts(settings)
    yield from cache_checks.doubts(settings)
    yield from mcp_checks.doubts(settings)
    for doubt in doubt_counters(settings.stores.counters):
        yield ("stores", "counters"), doubt
    for name, provider in settings.providers.items():
        if lack := provider.lack:
            unset = "has neither api_key nor credentials" if provider.provider.tokens else "has no api_key"
            missing = f"{provider.reference} {lack}" if provider.reference else unset
            yield ("providers", name), f"{missing}: its models answer 503"
        elif text := _credential_problem(provider):
            message = f"{provider.reference} cannot be used ({text}): its models answer 502"
            yield ("providers", name, "credentials"), message
        if provider.url.scheme == "http" and not is_private(provider.url.hostname or ""):
            yield (
                ("providers", name, "base_url"),
                "http:// is not encrypted: others on the network can read keys and prompts",
            )
        if text := _path_doubt(provider):
            yield ("providers", name, "base_url"), text
        if not any(model.provider == name for model in settings.models.values()):
            yield ("providers", name), "no model uses this provider"
    yield from auth_checks.doubts(settings)


def _path_doubt(provider: ProviderSettings) -> str:
    """The likely mistake in the path of an address, or None."""
    if provider.base_url is None or provider.one_path:
        return ""
    path = provider.url.path
    if end := max((end for end in _PATHS if path.endswith(end)), key=len, default=""):
        return f"the path of the request follows it: leave {end} out"
    usual = urlsplit(provider.provider.base_url or "https://host/v1").path
    if not path and usual and "{" not in usual:
        return f"it has no path; most services of the kind {provider.kind} want {provider.base_url}{usual}"
    return ""


def _credential_problem(provider: ProviderSettings) -> str | None:
    if provider.credentials is None or is_offline():
        return None
    return problem(provider.credentials, provider.read_secret() or "")


def _grant_doubts(settings: Settings, catalog: Catalog) -> Iterator[Found]:
    """Lints of names that no consumer with a credential may use. Models behind a wildcard are too many to check."""
    access = Access(settings.teams, settings.groups)
    # Consumers with the same grants are checked once, because there may be thousands.
    entries = {
        (entry.team, tuple(entry.groups), None if entry.models is None else tuple(entry.models)): entry
        for entry in settings.consumers
        if entry.can_enter
    }
    consumers = [access.consumer(entry) for entry in entries.values()]
    # Consumers from tokens are not known here.
    if not settings.auth.required or settings.auth.jwt or not consumers:
        return
    for name in catalog.names():
        where: KeyPath = ("models" if name in settings.models else "virtual_models", name)
        chain = catalog.resolve(name)
        granted = [who for who in consumers if who.may_use(name)]
        if not granted:
            yield where, "no consumer may use this model"
        elif chain and not any(who.may_use(target.name) for who in granted for target in chain.targets):
            yield where, "the consumers that may use this model may use none of its targets"


def _budget_doubts(settings: Settings, catalog: Catalog) -> Iterator[Found]:
    named = None if settings.auth.jwt else [ANONYMOUS, *(entry.name for entry in settings.consumers)]
    yield from budget_checks.doubts(settings, catalog, named)
    for index, entry in enumerate(settings.prices):
        if entry.provider is not None and entry.provider not in settings.providers:
            yield ("prices", index, "provider"), f"there is no provider {entry.provider!r}: this price never applies"


# --- lints of virtual models. A group is the set of targets below one entry of `targets`: several, where that is a
# virtual model.


def _leaves(below: Branch | Target, catalog: Catalog) -> Sequence[Target]:
    """The targets of a group, without those that are switched off."""
    if isinstance(below, Target):
        off = below.disabled or catalog.providers[below.provider].disabled
        return () if off else (below,)
    return [target for part in below.below for target in _leaves(part, catalog)]


_USERS: Mapping[str, Sequence[str]] = {
    "weight": ("weighted", "load"),
    "max_complexity": ("complexity",),
    "quality": ("quality",),
}
"""The strategies that use a field of a target."""


def _share_doubts(where: KeyPath, virtual: VirtualModelSettings) -> Iterator[Found]:
    weights = [target.weight for target in virtual.targets if "weight" in target.model_fields_set]
    total = sum(target.weight for target in virtual.targets)
    if "weighted" in virtual.strategy and weights and total != 100:
        yield (*where, "targets"), f"the weights add up to {total}, not to 100"
    for index, target in enumerate(virtual.targets):
        for field, users in _USERS.items():
            if field in target.model_fields_set and not set(users) & set(virtual.strategy):
                used, wanted = ", ".join(virtual.strategy), " and ".join(users)
                yield (*where, "targets", index, field), f"has no effect with the strategy {used}: it is for {wanted}"


def _ability_doubts(where: KeyPath, groups: Sequence[Sequence[Target]]) -> Iterator[Found]:
    """Lints of abilities. An inner virtual model has the abilities that any of its targets has; differences between its
    targets are reported at its own definition.
    """
    able = [{ability for ability in ABILITIES if any(_able(target, ability) for target in group)} for group in groups]
    contexts = [_context(group) for group in groups]
    most = max((context for context in contexts if context), default=0)
    for index, group in enumerate(groups):
        place = (*where, "targets", index)
        others = set().union(*able)
        lacking = [ability for ability in ABILITIES if ability in others - able[index]]
        if group and lacking:
            yield place, f"does not support {', '.join(lacking)}: requests that need it skip this target"
        context = contexts[index]
        if context and context < most:
            yield place, f"has a context of {context} tokens, another target {most}: longer requests skip this target"


def _able(target: Target, ability: str) -> bool:
    """True when the target has the ability. A target that changes a field which asks for it is not skipped."""
    if target.supports is None or ability in target.supports:
        return True
    return any(name in fields_that_ask_for(ability) for name, *_ in target.changes)


def _context(group: Sequence[Target]) -> int | None:
    """The largest context of the group, None when a context is unknown."""
    known = [target.context for target in group if target.context is not None]
    return max(known) if known and len(known) == len(group) else None


def _price_doubts(where: KeyPath, groups: Sequence[Sequence[Target]]) -> Iterator[Found]:
    for index, group in enumerate(groups):
        unknown = list(dict.fromkeys(target.name for target in group if target.price is None))
        if unknown:
            message = f"the price of {', '.join(map(repr, unknown[:3]))} is unknown, so it comes last: give a `price`"
            yield (*where, "targets", index), message


def _attempt_doubts(where: KeyPath, groups: Sequence[Sequence[Target]], chain: Chain) -> Iterator[Found]:
    """Lints of the number of tries. Targets with a `match` do not count: their requests are not known here."""
    different: list[Target] = []
    for target in (target for group in groups for target in group if not target.match):
        if not any(target.name == other.name and target.changes == other.changes for other in different):
            different.append(target)
    needed, attempts = sum(target.tries for target in different), chain.retry.attempts
    if attempts < needed:
        message = f"is {attempts}, the targets need {needed}: the last are tried only when others are skipped"
        yield (*where, "retry", "attempts"), message


def _provider_doubts(where: KeyPath, groups: Sequence[Sequence[Target]], *, in_order: bool) -> Iterator[Found]:
    providers = [{target.provider for target in group} for group in groups if group]
    if sum(map(len, groups)) < 2:
        return
    everywhere = set().union(*providers)
    if in_order and len(everywhere) == 1:
        yield (
            (*where, "targets"),
            f"all targets are at provider {everywhere.pop()!r}: when it is down, no target is left",
        )
    elif in_order and len(providers[0]) == 1 and providers[0] == providers[-1]:
        message = f"first and last target are at provider {next(iter(providers[0]))!r}: when it is down, both fail"
        yield (*where, "targets"), message
