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
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from extproc.providers import ProviderSettings, kinds
from extproc.routing.catalog import ModelSettings
from extproc.settings.config import ConfigError, Problem, not_yaml, parse
from extproc.settings.errors import explain
from extproc.words.values import Section, is_model_name

KINDS = {
    kind: kind for kind in ("openai", "anthropic", "groq", "deepseek", "openrouter", "perplexity", "databricks")
} | {
    "text-completion-openai": "openai",
    "azure": "azure_openai",
    "azure_ai": "azure_openai",
    "bedrock": "aws_bedrock",
    "cerebras": "cerebras",
    "cloudflare": "cloudflare",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gemini": "gcp_gemini",
    "github": "github_models",
    "hosted_vllm": "vllm",
    "jina_ai": "jina",
    "mistral": "mistral_ai",
    "nvidia_nim": "nvidia",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "together_ai": "together",
    "vertex_ai": "gcp_vertex_ai",
    "voyage": "voyage",
    "xai": "x_ai",
}
"""Kinds of provider here, by the first part of a model's name there."""
_COMPATIBLE = ("custom_openai", "litellm_proxy", "llamafile", "lm_studio", "openai_like")
"""First parts that stand for a service of one's own with OpenAI's API."""
_ALONE = {
    r"(?:gpt-|o\d|chatgpt-|text-embedding-|ft:|whisper-|tts-|dall-e-)": "openai",
    r"claude-": "anthropic",
    r"gemini-": "vertex_ai",
    r"command-": "cohere",
}
"""First parts that LiteLLM takes for names without one, by their beginning."""
STRATEGIES = {
    "simple-shuffle": "weighted",
    "least-busy": "weighted",
    "usage-based-routing": "weighted",
    "usage-based-routing-v2": "weighted",
    "latency-based-routing": "latency",
    "cost-based-routing": "cost",
}
_COSTS = {"input_cost_per_token", "output_cost_per_token"}
_USED = {"model", "api_key", "api_base", "base_url", "api_version", "aws_region_name", "vertex_project"}
_USED |= {"vertex_location", "weight", "timeout"} | _COSTS
_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
_NOTHING = "no counterpart"
_LEVELS = 4  # of the file, whose places notes name: model_list, number, litellm_params, key

Where = tuple[str | int, ...]


class Conversion(NamedTuple):
    """The settings as YAML, what is wrong in them, and notes on the file they come from."""

    text: str
    wrong: Sequence[Problem]
    notes: Sequence[Problem]


def convert(text: str, file: str) -> Conversion:
    """The settings, and notes on everything that has no counterpart or needs a hand.

    Raises ValueError for a file that is no such configuration.
    """
    try:
        tree, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(not_yaml(error, text).show(file)) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("model_list"), list):
        raise ValueError(  # noqa: TRY004 - the file is wrong, not a call
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
    """The place of each key and entry."""
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
    """No model that could be converted."""


class _Conversion:
    def __init__(self, tree: Mapping[str, Any], places: Mapping[Where, yaml.Mark]) -> None:
        self.notes: list[Problem] = []
        self._tree = tree
        self._places = places
        self._literal: dict[str, Any] = {}  # variable -> the secret in the file that it stands for
        self._providers: dict[str, dict[str, Any]] = {}
        self._models: dict[str, dict[str, Any]] = {}
        self._virtual: dict[str, dict[str, Any]] = {}
        self._taken: set[str] = set()  # names of models that clients use

    def problem(self, where: Where, text: str) -> Problem:
        known = next((where[:size] for size in range(len(where), 0, -1) if where[:size] in self._places), None)
        name = ".".join(map(str, where))
        if known is None:
            return Problem(name, text)
        mark = self._places[known]
        return Problem(name, text, mark.line + 1, mark.column + 1)

    def _note(self, where: Where, text: str) -> None:
        self.notes.append(self.problem(where, text))

    def result(self, file: str) -> Conversion:
        groups = self._groups()
        self._taken = {*groups, *self._alias_names()}
        # A fallback leads to the deployments of the other name, not to its fallbacks: two may name each other.
        fallbacks = self._fallbacks(groups)
        own = {name: self._free(f"{name}-own") if name in fallbacks else name for name in groups}
        found = {name for name, entries in groups.items() if self._group(name, entries, own[name])}
        if not found:
            raise _NothingLeftError
        for name in (name for name in fallbacks if name in found):
            order = [name, *(other for other in fallbacks[name] if other in found)]
            self._virtual[name] = {"targets": [{"model": own[each]} for each in dict.fromkeys(order)]}
        self._aliases()
        self._left_over()
        settings: dict[str, Any] = {"providers": self._providers, "models": self._models}
        if self._virtual:
            settings["virtual_models"] = self._virtual
        settings |= self._access()
        head = f"# Converted from {file} of LiteLLM. Check it: extproc check\n\n"
        shown = head + yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
        self.notes.sort(key=lambda note: (note.line, note.column))
        try:
            parse(shown, file)
        except ConfigError as error:
            return Conversion(shown, error.problems, self.notes)
        return Conversion(shown, (), self.notes)

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
        """A name that no model has: the given one, or one like it."""
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        found = next(each for each in names if each not in self._taken)
        self._taken.add(found)
        return found

    def _group(self, name: str, entries: Sequence[tuple[int, Mapping[str, Any]]], own: str) -> bool:
        """The deployments of one name, under the name `own`: a model, or a virtual model. False if none is left."""
        made = [(number, *made_of) for number, entry in entries if (made_of := self._model(number, entry)) is not None]
        if "*" in name:
            for number, *_ in made[1:]:
                self._note(("model_list", number), f"left out: only one provider can serve the wildcard {name!r}")
            made = made[:1]
        if len(made) == 1:
            self._models[own] = made[0][1]
        elif made:
            targets = []
            for place, (_, settings, weight) in enumerate(made, 1):
                model = self._free(f"{name}-{place}")
                self._models[model] = settings
                targets.append({"model": model, **({} if weight is None else {"weight": weight})})
            told = str(self._section("router_settings").get("routing_strategy"))
            self._virtual[own] = {"strategy": STRATEGIES.get(told, "weighted"), "targets": targets}
        return bool(made)

    def _model(self, number: int, entry: Mapping[str, Any]) -> tuple[dict[str, Any], int | None] | None:
        """The settings of one deployment, and its weight."""
        params, name = dict(entry["litellm_params"]), str(entry["model_name"])
        where: Where = ("model_list", number, "litellm_params")
        kind, model = self._kind(params, where)
        if not kind or not model:
            if params.get("model") != "*":
                self._note((*where, "model"), f"left out: there is no kind of provider for {params.get('model')!r}")
            return None
        found: dict[str, Any] = {}
        if "*" in name and "*" in model:
            if not _same_names(name, model):
                text = f"left out: {name!r} cannot become {model!r} here: only a beginning that ends in / is cut off"
                self._note((*where, "model"), text)
                return None
        elif model != name:
            found["model"] = model
        provider = self._provider(kind, params, where)
        if provider is None:
            return None
        found = {"provider": provider, **found}
        info = entry.get("model_info")
        info = info if isinstance(info, dict) else {}
        for key in sorted(set(map(str, params)) - _USED):
            self._note((*where, key), _counterpart(key))
        for key in sorted(set(map(str, info)) - _COSTS - {"id", "mode"}):
            self._note(("model_list", number, "model_info", key), _counterpart(key))
        for key in sorted(set(map(str, entry)) - {"model_name", "litellm_params", "model_info"}):
            self._note(("model_list", number, key), _counterpart(key))
        prices = {key: value for key, value in {**info, **params}.items() if key in _COSTS}
        numbers = {key: _number(value) for key, value in prices.items()}
        if numbers.keys() == _COSTS and None not in numbers.values():
            found["price"] = {side: round(numbers[f"{side}_cost_per_token"] * 1e6, 9) for side in ("input", "output")}  # type: ignore[operator]
        elif prices:
            self._note(where, "no price: it needs input_cost_per_token and output_cost_per_token, two numbers")
        if (timeout := params.get("timeout")) is not None:
            seconds = _number(timeout)
            if seconds:
                found["timeout"] = f"{seconds:g}s"
            else:
                self._note((*where, "timeout"), "left out: no number of seconds")
        if text := _wrong(ModelSettings, found):
            self._note(where, f"left out: {text}")
            return None
        return found, self._weight(params, where)

    def _weight(self, params: Mapping[str, Any], where: Where) -> int | None:
        key = "weight" if params.get("weight") is not None else "rpm"
        weight = _number(params.get(key))
        if params.get(key) is None:
            return None
        if weight is None or weight > 1_000_000 or weight != int(weight):
            self._note((*where, key), "left out: a weight here is a whole number up to 1000000")
            return None
        return int(weight)

    def _kind(self, params: dict[str, Any], where: Where) -> tuple[str, str]:
        """The kind of provider and the model's name there. Empty when there is no such kind."""
        told = params.get("model")
        prefix, slash, model = (told if isinstance(told, str) else "").partition("/")
        if not slash:
            alone = (known for begin, known in _ALONE.items() if re.match(begin, prefix))
            prefix, model = next(alone, ""), prefix
            if model == "*":
                text = "left out: * stands for every provider there; write a wildcard for each provider"
                self._note((*where, "model"), text)
                return "", model
            if model and not prefix:
                prefix = "openai"
                self._note((*where, "model"), f"{model!r} names no provider; openai is a guess")
        if prefix in _COMPATIBLE and (params.get("api_base") or params.get("base_url")):
            prefix = "openai"
        kind = KINDS.get(prefix, "")
        if kind == "azure_openai" and params.get("api_version"):
            kind = "azure_openai_dated"
        route, _, rest = model.partition("/")
        if (kind, route) in {("aws_bedrock", "converse"), ("aws_bedrock", "invoke"), ("openai", "responses")}:
            model = rest
            route, _, rest = model.partition("/")
        if kind == "aws_bedrock" and _REGION.fullmatch(route):
            params.setdefault("aws_region_name", route)
            model = rest
        return kind, model

    def _provider(self, kind: str, params: Mapping[str, Any], where: Where) -> str | None:
        """The name of the provider with these credentials and this address, made when there is none yet."""
        settings: dict[str, Any] = {"kind": kind}
        base = params.get("api_base") or params.get("base_url")
        if base:
            settings["base_url"] = self._plain(base, where, "https://{}.example.com")
            if kind in ("anthropic", "ollama") and urlsplit(settings["base_url"]).path in ("", "/"):
                settings["base_url"] = settings["base_url"].rstrip("/") + "/v1"  # LiteLLM adds it, too
        elif kinds()[kind].base_url is None:
            self._note(where, f"left out: kind {kind} needs api_base")
            return None
        if params.get("api_key"):
            settings["api_key"] = self._secret(params["api_key"], kind, (*where, "api_key"))
        elif not base and (found := re.search(r"api_key: (env:\w+)", kinds()[kind].example[0])):
            settings["api_key"] = found[1]
        for theirs, ours in (("api_version", "api_version"), ("vertex_project", "project")):
            if params.get(theirs) and (ours != "api_version" or kind == "azure_openai_dated"):
                settings[ours] = self._plain(params[theirs], where)
        region = params.get("aws_region_name") or params.get("vertex_location")
        if region:
            settings["region"] = self._plain(region, where)
        elif kind in ("aws_bedrock", "gcp_vertex_ai"):
            settings["region"] = "us-east-1" if kind == "aws_bedrock" else "global"
            self._note(where, f"no region given; {settings['region']} is a guess")
        if kind == "gcp_vertex_ai" and "project" not in settings:
            self._note(where, f"left out: kind {kind} needs vertex_project")
            return None
        if text := _wrong(ProviderSettings, settings):
            self._note(where, f"left out: {text}")
            return None
        names = chain([kind], (f"{kind}-{number}" for number in count(2)))
        name = next(name for name in names if self._providers.get(name, settings) == settings)
        self._providers[name] = settings
        return name

    def _plain(self, value: Any, where: Where, shape: str = "{}") -> str:
        """A value that is no secret. A placeholder of this shape takes the place of a variable, which cannot be one."""
        if found := _VARIABLE.fullmatch(str(value)):
            self._note(where, f"replace the placeholder of ${found[1]} by its value")
            return shape.format(found[1].replace("_", "-"))
        return str(value)

    def _secret(self, value: Any, purpose: str, where: Where) -> str:
        """A reference to a secret. One that stands in the file gets a variable of its own."""
        if found := _VARIABLE.fullmatch(str(value)):
            return f"env:{found[1]}"
        names = (f"GATEWAY_{purpose}_KEY{number}".upper() for number in chain([""], count(2)))
        variable = next(name for name in names if self._literal.setdefault(name, value) == value)
        self._note(where, f"its key is not copied: set the variable {variable}")
        return f"env:{variable}"

    def _section(self, name: str) -> Mapping[str, Any]:
        found = self._tree.get(name)
        return found if isinstance(found, dict) else {}

    def _fallbacks(self, groups: Mapping[str, Any]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for section in ("litellm_settings", "router_settings"):
            entries = self._section(section).get("fallbacks") or []
            for number, entry in enumerate(entries if isinstance(entries, list) else []):
                for name, others in entry.items() if isinstance(entry, dict) else ():
                    where: Where = (section, "fallbacks", number)
                    if str(name) not in groups or "*" in str(name):
                        self._note(where, f"left out: {name!r} is the name of no single model")
                        continue
                    order = found.setdefault(str(name), [])
                    for other in others if isinstance(others, list) else [others]:
                        if isinstance(other, str) and other in groups and "*" not in other:
                            order.append(other)
                        else:
                            told = repr(other) if isinstance(other, str) else "an entry"
                            self._note(where, f"{told} is left out: it is the name of no single model")
        return {name: others for name, others in found.items() if others}

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
                self._virtual[str(alias)] = {"targets": [{"model": name}]}
            else:
                self._note(where, f"left out: there is no model {name!r}")

    def _access(self) -> dict[str, Any]:
        key = self._section("general_settings").get("master_key")
        where = ("general_settings", "master_key")
        if key is None:
            self._note(where, "none; requests need no key, and the listener takes those of this machine only")
            return {"auth": {"required": False}, "listener": {"address": "127.0.0.1"}}
        reference = self._secret(key, "master", where)
        owner = {"name": "master", "team": "everybody", "keys": [{"env": reference.removeprefix("env:")}]}
        return {"consumers": [owner], "teams": {"everybody": {"models": ["*"]}}}

    def _left_over(self) -> None:
        """Notes on settings that were not read."""
        known = {
            "litellm_settings": {"fallbacks", "drop_params"},
            "router_settings": {"fallbacks", "routing_strategy", "model_group_alias"},
            "general_settings": {"master_key"},
        }
        for section, value in ((str(section), value) for section, value in self._tree.items()):
            if section == "model_list":
                continue
            if not isinstance(value, dict) or _counterpart(section) != _NOTHING:
                self._note((section,), _counterpart(section))
                continue
            for key in value:
                if key not in known.get(section, ()):
                    self._note((section, str(key)), _counterpart(str(key)))


def _same_names(name: str, model: str) -> bool:
    """True where a wildcard of LiteLLM leads to the same names at the provider as here (`Catalog`)."""
    short = name.endswith("/*")
    return model == ("*" if short else name)


def _number(value: Any) -> float | None:
    """A number that is not negative, also as text: YAML takes 3e-6 for text."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and found >= 0 else None


def _wrong(section: type[Section], settings: Mapping[str, Any]) -> str:
    """The first reason why a part of the settings is not valid, or nothing."""
    try:
        section.model_validate(settings)
    except ValidationError as error:
        path, text = explain(error.errors()[0], section)
        return ": ".join([*map(str, path), text])
    return ""


def _counterpart(key: str) -> str:
    if key.startswith("mcp_"):
        return "see docs/mcp.md"
    return f"see {_HINTS[key]}" if key in _HINTS else _NOTHING


_HINTS = {
    "access_groups": "`groups` in docs/access.md",
    "allowed_fails": "`cool_down` in docs/failover.md",
    "aws_access_key_id": "docs/providers/credentials.md",
    "aws_secret_access_key": "docs/providers/credentials.md",
    "budget_duration": "`window` in docs/budgets.md",
    "cache": "docs/cache.md",
    "cache_params": "docs/cache.md",
    "callbacks": "docs/telemetry.md",
    "context_window_fallbacks": "`context` in docs/failover.md",
    "cooldown_time": "`cool_down` in docs/failover.md",
    "database_url": "`stores.ledger` in docs/ledger.md",
    "default_fallbacks": "docs/failover.md",
    "failure_callback": "docs/telemetry.md",
    "guardrails": "docs/guardrails.md",
    "max_budget": "docs/budgets.md",
    "max_retries": "`tries` in docs/failover.md",
    "num_retries": "`retry` in docs/failover.md",
    "redis_host": "`stores.counters` in docs/budgets.md",
    "request_timeout": "`timeout` in docs/failover.md",
    "rpm": "docs/budgets.md: here it is only the weight among deployments of one name",
    "stream_timeout": "`per_try_timeout_stream` in docs/failover.md",
    "success_callback": "docs/telemetry.md",
    "tpm": "docs/budgets.md",
    "vertex_credentials": "docs/providers/credentials.md",
}
