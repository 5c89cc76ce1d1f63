"""Providers of LiteLLM's deployments, in this gateway's form: kinds, addresses and credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from itertools import chain, count
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from extproc.cli._litellm_names import ALONE, COMPATIBLE, KINDS
from extproc.settings.errors import explain
from extproc.upstream.providers import ProviderSettings, kinds
from extproc.words.values import Section

_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_PLACEHOLDER = re.compile(r"(?<![a-z])your[-_]|placeholder|x{4,}|<[^>]*>", re.IGNORECASE)
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")

Where = tuple[str | int, ...]


class ConvertedProviders:
    """The providers of the settings, by name. `note` adds a note on something that needs manual work."""

    def __init__(self, note: Callable[[Where, str], None]) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self._note = note
        self._literal: dict[str, Any] = {}  # variable -> the file's literal secret behind it

    def kind(self, params: dict[str, Any], where: Where) -> tuple[str, str]:
        """The kind of provider and the provider's name of the model. The kind is empty when this gateway has none."""
        told = params.get("model")
        prefix, slash, model = (told if isinstance(told, str) else "").partition("/")
        if not slash:
            alone = (known for begin, known in ALONE.items() if re.match(begin, prefix))
            prefix, model = next(alone, ""), prefix
            if model == "*":
                text = "left out: * stands for every provider there; write a wildcard for each provider"
                self._note((*where, "model"), text)
                return "", model
            if model and not prefix:
                prefix = "openai"
                self._note((*where, "model"), f"{model!r} names no provider; openai is a guess")
        if prefix in COMPATIBLE and (params.get("api_base") or params.get("base_url")):
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

    def name(self, kind: str, params: Mapping[str, Any], where: Where) -> str | None:
        """The name of the provider with these credentials and this address. The provider is added if it is new."""
        settings: dict[str, Any] = {"kind": kind}
        base = params.get("api_base") or params.get("base_url")
        if base:
            settings["base_url"] = self._plain(base, where, "https://<{}>")
            if kind in ("anthropic", "ollama") and urlsplit(settings["base_url"]).path in ("", "/"):
                settings["base_url"] = settings["base_url"].rstrip("/") + "/v1"  # LiteLLM adds it, too
        elif kinds()[kind].base_url is None:
            self._note(where, f"left out: kind {kind} needs api_base")
            return None
        if params.get("api_key"):
            settings["api_key"] = self.secret(params["api_key"], kind, (*where, "api_key"))
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
        if kind == "gcp_vertex_ai" and "api_key" not in settings:
            file = str(params.get("vertex_credentials") or "")
            settings["credentials"] = {"google": f"file:{file}" if file.startswith("/") else "metadata"}
            if not file.startswith("/"):
                text = (
                    "its tokens come from the metadata server of the machine; docs/providers/credentials.md has others"
                )
                self._note((*where, "vertex_credentials") if file else where, text)
        if text := first_problem(ProviderSettings, settings):
            self._note(where, f"left out: {text}")
            return None
        stem = (_host(settings["base_url"]) if base else "") or kind
        names = chain([stem], (f"{stem}-{number}" for number in count(2)))
        name = next(name for name in names if self.made.get(name, settings) == settings)
        self.made[name] = settings
        return name

    def _plain(self, value: Any, where: Where, shape: str = "<{}>") -> str:
        """A value that is not a secret. Settings allow no variable for it, so the variable's value stands in its place,
        or without one a placeholder that the checks refuse.
        """
        if _PLACEHOLDER.search(str(value)):
            self._note(where, f"{value!r} is a placeholder: write the value in its place")
            return shape.format("placeholder")
        if found := _VARIABLE.fullmatch(str(value)):
            if value := os.environ.get(found[1]):
                self._note(where, f"the value of ${found[1]} stands in the settings")
                return value
            self._note(where, f"set the variable {found[1]} and convert again, or write its value into the settings")
            return shape.format(found[1])
        return str(value)

    def secret(self, value: Any, purpose: str, where: Where) -> str:
        """A reference to a secret. A literal secret in the file gets a variable."""
        if found := _VARIABLE.fullmatch(str(value)):
            return f"env:{found[1]}"
        names = (f"GATEWAY_{purpose}_KEY{number}".upper() for number in chain([""], count(2)))
        variable = next(name for name in names if self._literal.setdefault(name, value) == value)
        self._note(where, f"its key is not copied: set the variable {variable}")
        return f"env:{variable}"


def _host(url: str) -> str:
    """A name for the provider at an address, from its host, unless the host is this machine or a number."""
    host = urlsplit(url).hostname or ""
    own = host == "localhost" or not re.search("[g-z]", host)
    return "" if own else re.sub(r"[^a-z0-9]+", "-", host).strip("-")


def first_problem(section: type[Section], settings: Mapping[str, Any]) -> str:
    """The first reason why a part of the settings is not valid, or nothing."""
    try:
        section.model_validate(settings)
    except ValidationError as error:
        path, text = explain(error.errors()[0], section)
        return ": ".join([*map(str, path), text])
    return ""
