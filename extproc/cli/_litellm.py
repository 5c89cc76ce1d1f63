"""LiteLLM's proxy configuration, converted to settings of this gateway.

Source of its format: https://docs.litellm.ai/docs/proxy/configs and /docs/routing. A secret that stands in the file is
never copied: the settings name a variable in its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any, NamedTuple

import yaml

from extproc.cli._litellm_limits import CEILINGS, PERIODS, Ceiling, amount, ceilings, whole
from extproc.cli._litellm_names import (
    DEFAULTS,
    KINDS,
    NO_COUNTERPART,
    OVERRIDES,
    STRATEGIES,
    counterpart,
)
from extproc.cli._litellm_providers import ConvertedProviders, Where, first_problem
from extproc.money.budgets.settings import BudgetSettings
from extproc.routing.settings import ModelSettings, TargetSettings
from extproc.settings.config import parse
from extproc.settings.document import ConfigError, SettingsProblem, not_yaml
from extproc.words.values import Pattern, is_model_name

_COSTS = {"input_cost_per_token", "output_cost_per_token"}
_USED = {"model", "api_key", "api_base", "base_url", "api_version", "aws_region_name", "vertex_project"}
_USED |= {
    "vertex_location",
    "vertex_credentials",
    "weight",
    "timeout",
    "stream_timeout",
    OVERRIDES,
    "max_retries",
    "num_retries",
}
_USED |= {"budget_duration"} | CEILINGS.keys() | _COSTS | DEFAULTS
_MOST_TRIES, _MOST_ATTEMPTS = 5, 16  # most `targets[].tries`; most `retry.attempts`
_TIMEOUTS = (("router_settings", "timeout"), ("litellm_settings", "request_timeout"))
_LEVELS = 4  # depth of places in notes: model_list, number, litellm_params, key


class Conversion(NamedTuple):
    """The result: settings as YAML, their errors, notes on the converted file, and a summary."""

    text: str
    wrong: Sequence[SettingsProblem]
    notes: Sequence[SettingsProblem]
    summary: str


class _Deployment(NamedTuple):
    """An entry of `model_list`, converted."""

    place: Where  # place of the deployment's parameters in the file
    model: dict[str, Any]  # an entry of `models`
    target: dict[str, Any]  # further keys of a target that leads to the deployment
    retries: int | None
    stream_timeout: float | None
    ceilings: Mapping[str, Ceiling]

    @property
    def plain(self) -> bool:
        """True if an entry of `models` describes the whole deployment."""
        return not (self.target.keys() - {"weight"} or self.retries or self.stream_timeout)


def convert(text: str, file: str) -> Conversion:
    """The settings, and notes on everything that has no counterpart or needs manual work.

    Raises ValueError for a file that is not a LiteLLM configuration.
    """
    try:
        tree, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(not_yaml(error, text).show(file)) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("model_list"), list):
        raise ValueError(  # noqa: TRY004 - the file has the error, not a call
            f"{file}:1:1: file: no configuration of LiteLLM: it has no model_list"
        )
    conversion = _Conversion(tree, dict(_places(node, ())))
    try:
        return conversion.result(file)
    except _NothingLeftError:
        notes = [note.show(file) for note in conversion.notes]
        notes.append(conversion.problem(("model_list",), "no deployment in it can be converted").show(file))
        raise ValueError("\n".join(notes)) from None


def _places(node: yaml.Node | None, path: Where) -> Iterator[tuple[Where, yaml.Mark]]:
    """The places of all keys and entries of the file."""
    if len(path) == _LEVELS:
        return
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield (*path, number), item.start_mark
            yield from _places(item, (*path, number))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, str(key.value)), key.start_mark
            yield from _places(value, (*path, str(key.value)))


class _NothingLeftError(Exception):
    """No model of the file could be converted."""


class _Conversion:
    def __init__(self, tree: Mapping[str, Any], places: Mapping[Where, yaml.Mark]) -> None:
        self.notes: list[SettingsProblem] = []
        self._tree = tree
        self._places = places
        self._providers = ConvertedProviders(self._note)
        self._models: dict[str, dict[str, Any]] = {}
        self._virtual: dict[str, dict[str, Any]] = {}
        self._budgets: list[dict[str, Any]] = []
        self._taken: set[str] = set()  # names of models that clients use

    def problem(self, where: Where, text: str) -> SettingsProblem:
        known = next((where[:size] for size in range(len(where), 0, -1) if where[:size] in self._places), None)
        name = ".".join(map(str, where))
        if known is None:
            return SettingsProblem(name, text)
        mark = self._places[known]
        return SettingsProblem(name, text, mark.line + 1, mark.column + 1)

    def _note(self, where: Where, text: str) -> None:
        self.notes.append(self.problem(where, text))

    def result(self, file: str) -> Conversion:
        groups = self._groups()
        self._taken = {*groups, *self._alias_names()}
        made = {
            name: [self._deployment(number, entry) for number, entry in entries] for name, entries in groups.items()
        }
        found = {name: known for name, entries in made.items() if (known := [entry for entry in entries if entry])}
        if not found:
            raise _NothingLeftError
        # A fallback leads to the deployments of the other name, not to that name's fallbacks, because two names may be
        # each other's fallback.
        fallbacks = self._fallbacks(found)
        own = {name: self._free(f"{name}-own") if name in fallbacks else name for name in found}
        for name, entries in found.items():
            self._group(name, entries, own[name])
        for name, others in fallbacks.items():
            self._virtual[name] = {"targets": [{"model": own[each]} for each in (name, *others)]}
            self._virtual[name] |= self._retry([found[each] for each in (name, *others)])
        self._aliases()
        self._shared_limits()
        self._left_over()
        settings: dict[str, Any] = {"providers": self._providers.made, "models": self._models}
        if self._virtual:
            settings["virtual_models"] = self._virtual
        settings |= self._access()
        if self._budgets:
            settings["budgets"] = self._budgets
        head = f"# Converted from {file} of LiteLLM. Check it: extproc check\n\n"
        shown = head + yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
        self.notes.sort(key=lambda note: (note.line, note.column))
        wrong: Sequence[SettingsProblem] = ()
        try:
            parse(shown, file)
        except ConfigError as error:
            wrong = error.problems
        return Conversion(shown, wrong, self.notes, self._summary(shown))

    def _summary(self, shown: str) -> str:
        kinds = ("provider", self._providers.made), ("model", self._models), ("virtual model", self._virtual)
        counts = [(name, len(found)) for name, found in (*kinds, ("budget", self._budgets))]
        told = ", ".join(f"{found} {name}{'s' * (found != 1)}" for name, found in counts)
        lines = [f"Converted: {told}. Notes above on what needs a hand or was left out: {len(self.notes)}."]
        if variables := sorted(set(re.findall(r"\benv: ?(\w+)", shown))):
            lines.append(f"The gateway reads these variables: {', '.join(variables)}.")
        if self._section("general_settings").get("database_url"):
            lines.append("Keys, teams and users in LiteLLM's database are not in its file: docs/access.md")
        return "\n".join(lines)

    def _groups(self) -> dict[str, list[tuple[int, Mapping[str, Any]]]]:
        """The deployments by the name that clients use, each with its number in the list."""
        groups: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        for number, entry in enumerate(self._tree["model_list"]):
            where = ("model_list", number)
            if not isinstance(entry, dict) or not isinstance(entry.get("litellm_params"), dict):
                self._note(where, "left out: it needs model_name and litellm_params")
            elif not is_model_name(name := str(entry.get("model_name") or "")) or name.count("*") > 1:
                text = "a model name has 1 to 256 printable ASCII characters, no spaces, and at most one *"
                self._note((*where, "model_name"), f"left out: {text}")
            else:
                groups.setdefault(name, []).append((number, entry))
        return groups

    def _free(self, name: str) -> str:
        """An unused name for a model: the given name, or a similar one."""
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        found = next(each for each in names if each not in self._taken)
        self._taken.add(found)
        return found

    def _group(self, name: str, entries: Sequence[_Deployment], own: str) -> None:
        """The deployments of one name, under the name `own`: a model, or a virtual model."""
        if "*" in name:
            for entry in entries[1:]:
                self._note(entry.place[:2], f"left out: only one provider can serve the wildcard {name!r}")
            entries = entries[:1]
            if not entries[0].plain:
                text = "retries, stream_timeout and fields of requests are left out: no virtual model is a wildcard"
                self._note(entries[0].place, text)
        if len(entries) == 1 and ("*" in name or entries[0].plain):
            self._models[own] = entries[0].model
            self._limit(name, own, entries)
            return
        targets = []
        attempts = self._attempts(entries)
        tries = min(_MOST_TRIES, math.ceil(attempts / len(entries))) if attempts else 1
        for place, entry in enumerate(entries, 1):
            model = self._free(f"{name}@{place}")
            self._models[model] = entry.model
            targets.append({"model": model, **entry.target, **({"tries": tries} if tries > 1 else {})})
        told = str(self._section("router_settings").get("routing_strategy"))
        strategy = STRATEGIES.get(told, "weighted") if len(entries) > 1 else ""
        if strategy != "weighted":
            for target in targets:
                target.pop("weight", None)
        order = {"strategy": strategy} if strategy else {}
        self._virtual[own] = {**order, "targets": targets, **self._retry([entries])}
        self._limit(name, f"{name}@*", entries)

    def _retry(self, groups: Sequence[Sequence[_Deployment]]) -> dict[str, Any]:
        """The part `retry` of a virtual model that leads to the deployments of these names. Only the `retry` of the
        requested name applies, so each virtual model has a complete one.
        """
        attempts = [self._attempts(entries) for entries in groups]
        waits = [entry.stream_timeout for entries in groups for entry in entries if entry.stream_timeout]
        retry: dict[str, Any] = {}
        if any(attempts):
            retry["attempts"] = min(_MOST_ATTEMPTS, sum(each or 1 for each in attempts))
        if waits:
            retry["per_try_timeout_stream"] = f"{max(waits):g}s"
        return {"retry": retry} if retry else {}

    def _attempts(self, entries: Sequence[_Deployment]) -> int:
        """Tries of one request at the deployments of a name; 0 if the file does not set them."""
        retries = [entry.retries for entry in entries if entry.retries is not None]
        return min(_MOST_ATTEMPTS, max(retries) + 1) if retries else 0

    def _limit(self, name: str, pattern: str, entries: Sequence[_Deployment]) -> None:
        """Budgets of a name, whose limits are the sums of its deployments' limits."""
        for key in CEILINGS:
            known = [entry.ceilings[key] for entry in entries if key in entry.ceilings]
            if not known:
                continue
            where = (*entries[0].place, key)
            if len(known) < len(entries) or len({ceiling.window for ceiling in known}) > 1:
                self._note(where, f"left out: the deployments of {name!r} do not all have it, for one period")
                continue
            self._budget(f"{name}-{key}", {"model": pattern}, sum(ceiling.limit for ceiling in known), known[0], where)

    def _budget(self, name: str, match: Mapping[str, str], limit: float, like: Ceiling, where: Where) -> None:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "all"
        settings = {"name": name, **({"match": dict(match)} if match else {}), "unit": like.unit, "limit": limit}
        settings |= {"window": like.window} if like.window else {}
        if text := first_problem(BudgetSettings, settings):
            self._note(where, f"left out: {text}")
        else:
            self._budgets.append(settings)

    def _shared_limits(self) -> None:
        """Budgets for the limits of the whole proxy, and of its providers."""
        for section in ("litellm_settings", "general_settings"):
            for key, shared in self._ceilings(self._section(section), (section,)).items():
                self._budget(f"all-{key}", {}, shared.limit, shared, (section, key))
        told = _mapping(self._section("router_settings").get("provider_budget_config"))
        for name, params in told.items():
            self._provider_limit(str(name), _mapping(params))

    def _provider_limit(self, name: str, params: Mapping[str, Any]) -> None:
        where: Where = ("router_settings", "provider_budget_config", name)
        limit, time = (next((params[key] for key in keys if key in params), None) for keys in PERIODS)
        ceiling = self._ceilings({"max_budget": limit, "budget_duration": time}, where).get("max_budget")
        ours = [ours for ours, its in self._providers.made.items() if its["kind"] == KINDS.get(name)]
        if ceiling is None or not ours:
            self._note(where, "left out: it needs budget_limit, and a provider of model_list")
            return
        if len(ours) > 1:
            self._note(where, f"{len(ours)} providers are of this kind: each has a count of its own")
        for provider in ours:
            self._budget(f"provider-{provider}", {"provider": provider}, ceiling.limit, ceiling, where)

    def _ceilings(self, params: Mapping[str, Any], where: Where) -> Mapping[str, Ceiling]:
        found, notes = ceilings(params)
        for key, text in notes:
            self._note((*where, key), text)
        return found

    def _deployment(self, number: int, entry: Mapping[str, Any]) -> _Deployment | None:
        """One entry of `model_list`, converted; None if it cannot be."""
        params, name = dict(entry["litellm_params"]), str(entry["model_name"])
        where: Where = ("model_list", number, "litellm_params")
        model = self._model(params, name, where)
        if model is None:
            return None
        info = _mapping(entry.get("model_info"))
        self._unread(number, entry)
        prices = {key: value for key, value in {**info, **params}.items() if key in _COSTS}
        numbers = {key: value for key, text in prices.items() if (value := amount(text)) is not None}
        if numbers.keys() == _COSTS:
            model["price"] = {side: round(numbers[f"{side}_cost_per_token"] * 1e6, 9) for side in ("input", "output")}
        elif prices:
            self._note(where, "no price: it needs input_cost_per_token and output_cost_per_token, two numbers")
        if (timeout := self._seconds(params, "timeout", where) or self._timeout()) is not None:
            model["timeout"] = f"{timeout:g}s"
        if text := first_problem(ModelSettings, model):
            self._note(where, f"left out: {text}")
            return None
        stream = self._seconds(params, "stream_timeout", where)
        if stream and timeout and stream > timeout:
            stream = None  # in LiteLLM, too, the shorter of the two applies
        retries = self._retries(params, where)
        target = self._target(params, where)
        return _Deployment(where, model, target, retries, stream, self._ceilings(params, where))

    def _model(self, params: dict[str, Any], name: str, where: Where) -> dict[str, Any] | None:
        """The provider and the provider's name of the model, as an entry of `models`."""
        kind, model = self._providers.kind(params, where)
        if not kind or not model:
            if params.get("model") != "*":
                self._note((*where, "model"), f"left out: there is no kind of provider for {params.get('model')!r}")
            return None
        if "*" in name and "*" in model and not _same_names(name, model):
            text = f"left out: {name!r} cannot become {model!r} here: only a beginning that ends in / is cut off"
            self._note((*where, "model"), text)
            return None
        provider = self._providers.name(kind, params, where)
        if provider is None:
            return None
        return {"provider": provider, **({"model": model} if "*" not in model and model != name else {})}

    def _unread(self, number: int, entry: Mapping[str, Any]) -> None:
        """Notes on the parts of a deployment that have no counterpart."""
        params, info = entry["litellm_params"], _mapping(entry.get("model_info"))
        for key in sorted(set(map(str, params)) - _USED):
            self._note(("model_list", number, "litellm_params", key), counterpart(key))
        for key in sorted(set(map(str, info)) - _COSTS - {"id", "mode"}):
            self._note(("model_list", number, "model_info", key), counterpart(key))
        for key in sorted(set(map(str, entry)) - {"model_name", "litellm_params", "model_info"}):
            self._note(("model_list", number, key), counterpart(key))

    def _target(self, params: Mapping[str, Any], where: Where) -> dict[str, Any]:
        """The weight of a deployment, and the fields that it sets in requests."""
        found: dict[str, Any] = {}
        if (weight := self._weight(params, where)) is not None:
            found["weight"] = weight
        default = {key: params[key] for key in sorted(DEFAULTS & params.keys()) if params[key] is not None}
        for name, key, fields in (("default", "model", default), ("override", OVERRIDES, params.get(OVERRIDES))):
            if not fields:
                continue
            if text := first_problem(TargetSettings, {"model": "m", name: fields}):
                self._note((*where, key), f"left out: {text}")
            else:
                found[name] = fields
        return found

    def _seconds(self, params: Mapping[str, Any], key: str, where: Where) -> float | None:
        """A time in the file, in seconds."""
        if params.get(key) is None:
            return None
        seconds = amount(params[key])
        if not seconds:
            self._note((*where, key), "left out: no number of seconds")
        return seconds or None

    def _timeout(self) -> float | None:
        """The time limit of deployments without an own limit."""
        found = (amount(self._section(name).get(key)) for name, key in _TIMEOUTS)
        return next((seconds for seconds in found if seconds), None)

    def _retries(self, params: Mapping[str, Any], where: Where) -> int | None:
        sections = ((self._section(name), (name,)) for name in ("router_settings", "litellm_settings"))
        for source, place in ((params, where), *sections):
            for key in ("num_retries", "max_retries"):
                if source.get(key) is None:
                    continue
                if (found := whole(source[key])) is not None:
                    return found
                self._note((*place, key), "left out: no number of retries")
        return None

    def _weight(self, params: Mapping[str, Any], where: Where) -> int | None:
        key = "weight" if params.get("weight") is not None else "rpm"
        weight = amount(params.get(key))
        if params.get(key) is None:
            return None
        if weight is None or weight > 1_000_000 or weight != int(weight):
            self._note((*where, key), "left out: a weight here is a whole number up to 1000000")
            return None
        return int(weight)

    def _section(self, name: str) -> Mapping[str, Any]:
        return _mapping(self._tree.get(name))

    def _fallbacks(self, groups: Mapping[str, Any]) -> dict[str, list[str]]:
        """The names that serve when another name fails. A pattern stands for all names without an entry of
        their own.
        """
        plain = [name for name in groups if "*" not in name]
        found: dict[str, list[str]] = {}
        patterns: dict[str, list[str]] = {}
        for section in ("litellm_settings", "router_settings"):
            entries = self._section(section).get("fallbacks") or []
            for number, entry in enumerate(entries if isinstance(entries, list) else []):
                for name, others in entry.items() if isinstance(entry, dict) else ():
                    where: Where = (section, "fallbacks", number)
                    if name in groups or "*" in str(name):
                        into = patterns if "*" in str(name) else found
                        into.setdefault(str(name), []).extend(self._usable(others, plain, where))
                    else:
                        self._note(where, f"left out: {name!r} is the name of no model")
                    if "*" in str(name) and name in groups:
                        self._note(
                            where, f"left out for names that only {name!r} covers: no virtual model is a wildcard"
                        )
            others = self._section(section).get("default_fallbacks") or []
            patterns.setdefault("*", []).extend(self._usable(others, plain, (section, "default_fallbacks")))
        for name in plain:
            fits = [pattern for pattern in patterns if Pattern(pattern)(name)]
            if name not in found and fits:
                found[name] = patterns[max(fits, key=len)]
        own = {name: [other for other in dict.fromkeys(others) if other != name] for name, others in found.items()}
        return {name: others for name, others in own.items() if others}

    def _usable(self, others: Any, plain: Sequence[str], where: Where) -> Iterator[str]:
        """The entries of a list of fallbacks that name models."""
        for other in others if isinstance(others, list) else [others]:
            if other in plain:
                yield other
            else:
                told = repr(other) if isinstance(other, str) else "an entry"
                self._note(where, f"{told} is left out: it is the name of no single model")

    def _alias_names(self) -> Sequence[str]:
        aliases = self._section("router_settings").get("model_group_alias")
        return [str(alias) for alias in aliases] if isinstance(aliases, dict) else []

    def _aliases(self) -> None:
        aliases = self._section("router_settings").get("model_group_alias")
        for alias, value in aliases.items() if isinstance(aliases, dict) else ():
            where = ("router_settings", "model_group_alias", str(alias))
            name = str(value.get("model") if isinstance(value, dict) else value)
            if isinstance(value, dict) and value.get("hidden"):
                self._note(where, "hidden: no counterpart: GET /v1/models lists it")
            if str(alias) in self._models or str(alias) in self._virtual:
                self._note(where, "left out: a model has this name")
            elif not is_model_name(str(alias)) or "*" in str(alias):
                self._note(where, "left out: this is no name of a model here")
            elif name in self._models or name in self._virtual:
                like = self._virtual.get(name, {})
                retry = {"retry": dict(like["retry"])} if "retry" in like else {}
                self._virtual[str(alias)] = {"targets": [{"model": name}], **retry}
            else:
                self._note(where, f"left out: there is no model {name!r}")

    def _access(self) -> dict[str, Any]:
        key = self._section("general_settings").get("master_key")
        where = ("general_settings", "master_key")
        if key is None:
            self._note(where, "none; requests need no key, and the listener takes those of this machine only")
            return {"auth": {"required": False}, "listener": {"address": "127.0.0.1"}}
        reference = self._providers.secret(key, "master", where)
        owner = {"name": "master", "team": "everybody", "keys": [{"env": reference.removeprefix("env:")}]}
        return {"consumers": [owner], "teams": {"everybody": {"models": ["*"]}}}

    def _left_over(self) -> None:
        """Notes on settings that were not read."""
        known = {
            "litellm_settings": {"drop_params", "request_timeout"},
            "router_settings": {"routing_strategy", "model_group_alias", "provider_budget_config", "timeout"},
            "general_settings": {"master_key"},
        }
        everywhere = {"fallbacks", "default_fallbacks", "num_retries", "max_retries", "budget_duration", *CEILINGS}
        for section, value in ((str(section), value) for section, value in self._tree.items()):
            if section == "model_list":
                continue
            if not isinstance(value, dict) or counterpart(section) != NO_COUNTERPART:
                self._note((section,), counterpart(section))
                continue
            for key in value:
                if key not in known.get(section, ()) and key not in everywhere:
                    self._note((section, str(key)), counterpart(str(key)))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _same_names(name: str, model: str) -> bool:
    """True if a wildcard of LiteLLM leads to the same provider's names as in this gateway (`Catalog`)."""
    short = name.endswith("/*")
    return model == ("*" if short else name)
