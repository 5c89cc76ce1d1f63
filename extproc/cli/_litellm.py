"""LiteLLM's proxy configuration, converted to settings of this gateway.

Source of its format: https://docs.litellm.ai/docs/proxy/configs and /docs/routing. A secret that stands in the file is
never copied: the settings name a variable in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from extproc.providers import kinds
from extproc.settings.config import ConfigError, parse

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
STRATEGIES = {
    "simple-shuffle": "weighted",
    "least-busy": "weighted",
    "usage-based-routing": "weighted",
    "usage-based-routing-v2": "weighted",
    "latency-based-routing": "latency",
    "cost-based-routing": "cost",
}
_USED = {"model", "api_key", "api_base", "base_url", "api_version", "aws_region_name", "vertex_project"}
_USED |= {"vertex_location", "weight", "rpm", "input_cost_per_token", "output_cost_per_token", "timeout"}
_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")


def convert(text: str, file: str) -> tuple[str, Sequence[str]]:
    """The settings as YAML, and notes on everything that has no counterpart or needs a hand.

    Raises ValueError for a file that is no such configuration.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{file}: not YAML") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("model_list"), list):
        raise ValueError(  # noqa: TRY004 - the file is wrong, not a call
            f"{file}: no configuration of LiteLLM: it has no model_list"
        )
    return _Conversion(tree).result(file)


class _Conversion:
    def __init__(self, tree: Mapping[str, Any]) -> None:
        self._tree = tree
        self._notes: list[str] = []
        self._literal: dict[str, Any] = {}  # variable -> the secret in the file that it stands for
        self._providers: dict[str, dict[str, Any]] = {}
        self._models: dict[str, dict[str, Any]] = {}
        self._virtual: dict[str, dict[str, Any]] = {}

    def result(self, file: str) -> tuple[str, Sequence[str]]:
        groups: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        for number, entry in enumerate(self._tree["model_list"]):
            if isinstance(entry, dict) and isinstance(entry.get("litellm_params"), dict) and entry.get("model_name"):
                groups.setdefault(str(entry["model_name"]), []).append((number, entry))
            else:
                self._notes.append(f"model_list.{number}: left out: it needs model_name and litellm_params")
        # A fallback leads to the deployments of the other name, not to its fallbacks: two may name each other.
        fallbacks = {name: others for name, others in self._fallbacks().items() if name in groups and "*" not in name}
        own = {name: f"{name}-own" if name in fallbacks else name for name in groups}
        found = {name for name, entries in groups.items() if self._group(name, entries, own[name])}
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
        try:
            parse(shown, file)
        except ConfigError as error:
            raise ValueError(f"{file}: the settings that come of it are not valid:\n{error}") from None
        return shown, self._notes

    def _group(self, name: str, entries: Sequence[tuple[int, Mapping[str, Any]]], own: str) -> bool:
        """The deployments of one name, under the name `own`: a model, or a virtual model. False if none is left."""
        made = [model for number, entry in entries if (model := self._model(number, entry)) is not None]
        if len(made) == 1:
            self._models[own] = made[0][0]
        elif made:
            targets = []
            for number, (settings, weight) in enumerate(made, 1):
                self._models[f"{name}-{number}"] = settings
                targets.append({"model": f"{name}-{number}", **({} if weight is None else {"weight": weight})})
            told = str(self._section("router_settings").get("routing_strategy"))
            self._virtual[own] = {"strategy": STRATEGIES.get(told, "weighted"), "targets": targets}
        return bool(made)

    def _model(self, number: int, entry: Mapping[str, Any]) -> tuple[dict[str, Any], int | None] | None:
        """The settings of one deployment, and its weight."""
        params, where = entry["litellm_params"], f"model_list.{number}"
        prefix, slash, model = str(params.get("model", "")).partition("/")
        if not slash:
            prefix, model = "openai", prefix
        kind = KINDS.get(prefix)
        if kind is None or not model:
            self._notes.append(f"{where}: left out: there is no kind of provider for {params.get('model')!r}")
            return None
        if kind == "azure_openai" and params.get("api_version"):
            kind = "azure_openai_dated"
        provider = self._provider(kind, params, where)
        if provider is None:
            return None
        for key in sorted(set(params) - _USED):
            self._notes.append(f"{where}.litellm_params.{key}: no counterpart")
        found: dict[str, Any] = {"provider": provider}
        wild = "*" in str(entry["model_name"])
        if not wild and model != entry["model_name"]:
            found["model"] = model
        prices = {**entry.get("model_info", {}), **params} if isinstance(entry.get("model_info", {}), dict) else params
        if {"input_cost_per_token", "output_cost_per_token"} <= set(prices):
            found["price"] = {
                side: round(float(prices[f"{side}_cost_per_token"]) * 1e6, 9) for side in ("input", "output")
            }
        if isinstance(params.get("timeout"), int | float):
            found["timeout"] = f"{params['timeout']:g}s"
        weight = params.get("weight", params.get("rpm"))
        return found, int(weight) if isinstance(weight, int | float) and 0 <= weight <= 1_000_000 else None

    def _provider(self, kind: str, params: Mapping[str, Any], where: str) -> str | None:
        """The name of the provider with these credentials and this address, made when there is none yet."""
        settings: dict[str, Any] = {"kind": kind}
        base = params.get("api_base") or params.get("base_url")
        if base:
            settings["base_url"] = self._plain(base, where, "https://{}.example.com")
        elif kinds()[kind].base_url is None:
            self._notes.append(f"{where}: left out: kind {kind} needs api_base")
            return None
        if params.get("api_key"):
            settings["api_key"] = self._secret(params["api_key"], kind, where)
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
            self._notes.append(f"{where}: no region given; {settings['region']} is a guess")
        if kind == "gcp_vertex_ai" and "project" not in settings:
            self._notes.append(f"{where}: left out: kind {kind} needs vertex_project")
            return None
        names = [kind, *(f"{kind}-{number}" for number in range(2, 1000))]
        name = next(name for name in names if self._providers.get(name, settings) == settings)
        self._providers[name] = settings
        return name

    def _plain(self, value: Any, where: str, shape: str = "{}") -> str:
        """A value that is no secret. A placeholder of this shape takes the place of a variable, which cannot be one."""
        if found := _VARIABLE.fullmatch(str(value)):
            self._notes.append(f"{where}: replace the placeholder of ${found[1]} by its value")
            return shape.format(found[1].replace("_", "-"))
        return str(value)

    def _secret(self, value: Any, purpose: str, where: str) -> str:
        """A reference to a secret. One that stands in the file gets a variable of its own."""
        if found := _VARIABLE.fullmatch(str(value)):
            return f"env:{found[1]}"
        names = (f"GATEWAY_{purpose}_KEY{number}".upper() for number in ("", *range(2, 10_000)))
        variable = next(name for name in names if self._literal.setdefault(name, value) == value)
        self._notes.append(f"{where}: its key is not copied: set the variable {variable}")
        return f"env:{variable}"

    def _section(self, name: str) -> Mapping[str, Any]:
        found = self._tree.get(name)
        return found if isinstance(found, dict) else {}

    def _fallbacks(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for section in ("litellm_settings", "router_settings"):
            entries = self._section(section).get("fallbacks") or []
            for entry in entries if isinstance(entries, list) else []:
                for name, others in entry.items() if isinstance(entry, dict) else ():
                    found.setdefault(str(name), []).extend(map(str, others if isinstance(others, list) else [others]))
        return found

    def _aliases(self) -> None:
        aliases = self._section("router_settings").get("model_group_alias")
        for alias, name in aliases.items() if isinstance(aliases, dict) else ():
            if name in self._models or name in self._virtual:
                self._virtual[str(alias)] = {"targets": [{"model": str(name)}]}
            else:
                self._notes.append(f"router_settings.model_group_alias.{alias}: left out: there is no model {name!r}")

    def _access(self) -> dict[str, Any]:
        key = self._section("general_settings").get("master_key")
        if key is None:
            self._notes.append("general_settings.master_key: none; requests need no key")
            return {"auth": {"required": False}}
        reference = self._secret(key, "master", "general_settings.master_key")
        owner = {"name": "master", "team": "everybody", "keys": [{"env": reference.removeprefix("env:")}]}
        return {"consumers": [owner], "teams": {"everybody": {"models": ["*"]}}}

    def _left_over(self) -> None:
        """Notes on settings that were not read."""
        known = {
            "litellm_settings": {"fallbacks", "drop_params"},
            "router_settings": {"fallbacks", "routing_strategy", "model_group_alias"},
            "general_settings": {"master_key"},
        }
        for section, value in self._tree.items():
            if section != "model_list":
                self._notes += _unknown(str(section), value, known.get(str(section), set()))


def _unknown(section: str, value: Any, known: set[str]) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{section}: no counterpart"
        return
    for key in value:
        if key not in known:
            hint = _HINTS.get(str(key))
            yield f"{section}.{key}: {f'see {hint}' if hint else 'no counterpart'}"


_HINTS = {
    "cache": "`cache` in docs/configuration.md",
    "cache_params": "`cache` in docs/configuration.md",
    "database_url": "`stores.ledger` in docs/ledger.md",
    "redis_host": "`stores.counters` in docs/budgets.md",
    "num_retries": "`retry` in docs/failover.md",
    "allowed_fails": "`cool_down` in docs/failover.md",
    "cooldown_time": "`cool_down` in docs/failover.md",
    "guardrails": "docs/guardrails.md",
    "max_budget": "docs/budgets.md",
    "callbacks": "docs/telemetry.md",
    "success_callback": "docs/telemetry.md",
}
