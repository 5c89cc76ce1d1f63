"""APIs of clients and providers: the JSON of each. Only a dialect names fields of its API.

A module that defines the names of `ClientAPI` or `ProviderAPI` (`words.api`) is a dialect; most of the names are
imported from the files of its room. The client's path decides its dialect. A dialect reads only fields that the gateway
needs; other fields pass through.

Files have the same names in all rooms; a room has those it needs:

    ask.py               the gateway's reading of a client's request: `Fields`, and the API's `_view.View`
    report.py            the gateway's reading of an answer that passes through: `Report`
    said.py              the text of an answer, for guardrails
    client_request.py    a client's request, read into the neutral form
    client_answer.py     the neutral answer, written for a client
    client_stream.py     ... event by event
    provider_request.py  the neutral request, written for a provider
    provider_answer.py   a provider's answer, read into the neutral form
    provider_stream.py   ... event by event
    usage.py             counts of tokens, read and written
    problem.py           errors, read and written
    shapes.py            structs of requests and answers, and words for their values
    conversation.py      turns and their parts, for a provider
    thinking.py          the thinking that a request asks for
    signature.py         proofs of thinking, which have to come back unchanged
    models.py            families of models behind one API, by their names
    schema.py            JSON Schemas that the API can enforce
    plain.py             requests that the neutral form carries whole
    media.py             images, files, audio
    names.py             names of tools
    spelling.py          names of fields, of an API that has several for each
    partial.py           arguments of calls that stream value by value
    turns.py             turns of a conversation that the gateway keeps
    tooling.py           requests without some of their tools
    custom.py            custom tools, whose input is no JSON

A small dialect is one file. Files that begin with `_` are shared by several; `_models.yaml` has the abilities and
limits of models by their names.

A dialect declares the `Fields` of its API once: the field that names the model, those that limit the output, those that
no target may change. A scan of the tests fails when another room names a field of an API. A path may hold the model's
name (`/v1beta/models/{model}:generateContent`): `Classify` takes it out, and the attempt attachment writes the path of
each target. A body of an API with several spellings for a field (`Naming.spelled`) is written anew before anything
reads it. `a.b` names a field inside an object (`contract.place`).
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from extproc.words.api import ClientAPI, ProviderAPI
from extproc.words.dialect import ANY, ID, KEPT, PLACE, Endpoint
from extproc.words.errors import INVALID_REQUEST, Refusal

MAX_TOKENS = 1_000_000_000
"""Highest plausible token count, from a client or a provider."""


ENDED = frozenset(("stop", "tool_calls", "function_call", "end_turn", "stop_sequence", "tool_use", "STOP"))
"""Finish reasons of answers that the model ended itself, in all APIs."""

LIMITED = frozenset(("length", "max_tokens", "MAX_TOKENS"))
"""Finish reasons of answers that reached the request's limit."""

FREE_OPTIONS = frozenset(
    ("auto", "default", "standard", "standard_only", "on_demand", "flex", "global", "not_available")
)
"""Values of `Fields.options` that cost no more than an absent option, in every API with them."""


ADDED_TOKENS = 1024
"""Most tokens that providers add to a prompt for tools or a schema. Anthropic adds the most: up to 804."""

NOT_FORWARDED = frozenset(
    (
        *("api_base", "base_url", "api_key", "api_version", "azure_ad_token", "custom_llm_provider"),
        *("extra_headers", "extra_query", "default_headers", "default_query", "user_config", "vertex_credentials"),
        *("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_bedrock_runtime_endpoint"),
        *("aws_sts_endpoint", "aws_web_identity_token", "aws_role_name", "aws_profile_name"),
    )
)
"""Fields of client libraries and other gateways with an address, a credential or headers. No API has these fields. A
gateway behind this one could obey them, and send its key to an address chosen by the client.
"""

WRAPPER = "extra_body"
"""An object whose fields some gateways and servers merge into the body. Google's API has its own settings there."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_name = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}").fullmatch
_id = re.compile(r"[A-Za-z0-9_-]{1,256}").fullmatch
_MOST_NAMES = 32


def read_model(body: Mapping[str, Any]) -> str:
    """The `model` field. Raises Refusal (400)."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refusal(INVALID_REQUEST, "Name a model: 'model' must be a string.", param="model")
    return model


def read_integer(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """An optional whole number; null counts as absent. Raises Refusal (400)."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise Refusal(INVALID_REQUEST, f"'{name}' must be a whole number from {least} to {most}.", param=name)
    return value


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    """An optional boolean; null counts as absent. Raises Refusal (400)."""
    value = body.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise Refusal(INVALID_REQUEST, f"'{name}' must be true or false.", param=name)
    return value


def safe_names(names: Iterable[str]) -> list[str]:
    """Field names fit for a header: distinct, and only the first few, because clients choose some of them."""
    return list(dict.fromkeys(name if _name(name) else "other" for name in names))[:_MOST_NAMES]


def is_id(value: Any) -> bool:
    """True for an id of a provider's object that is safe in a path."""
    return isinstance(value, str) and _id(value) is not None


def token_count(value: Any) -> int | None:
    """A provider's token count; None for an implausible value."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


@cache
def _modules() -> Mapping[str, Any]:
    """Modules of this package that are dialects, by name."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


@cache
def client_apis() -> Mapping[str, ClientAPI]:
    """Dialects of clients by name: modules, or a module's object `CLIENT`."""
    found = {name: getattr(module, "CLIENT", module) for name, module in _modules().items()}
    return {name: dialect for name, dialect in found.items() if hasattr(dialect, "endpoints")}


@cache
def provider_apis() -> Mapping[str, ProviderAPI]:
    """Dialects into which requests are translated, by name."""
    return {name: module for name, module in _modules().items() if hasattr(module, "able")}


def families() -> Mapping[str, str]:
    """Family of every dialect, by the dialect's name."""
    providers = {name: dialect.family for name, dialect in provider_apis().items()}
    return providers | {name: dialect.family for name, dialect in client_apis().items()}


@cache
def by_path() -> Mapping[str, ClientAPI]:
    """The dialect of a path in `Endpoints.paths`, for a request without a mark (`Endpoints.marked`)."""
    unmarked = [dialect for dialect in client_apis().values() if not dialect.endpoints.marked]
    return {path: dialect for dialect in unmarked for path in dialect.endpoints.paths}


@cache
def models_paths() -> Sequence[str]:
    """Paths of the list of models; the path of one model begins with them."""
    each = [dialect.endpoints for dialect in client_apis().values()]
    return tuple(dict.fromkeys(["/v1/models", *(found.models_path for found in each if found.models_path)]))


def served() -> Sequence[tuple[str, str]]:
    """Methods and paths for clients, including aliases."""
    each = [dialect.endpoints for dialect in client_apis().values()]
    paths = {path for endpoints in each for path in (*endpoints.paths, *endpoints.aliases)}
    return [*(("POST", path) for path in sorted(paths)), *calls()]


def calls() -> Sequence[tuple[str, str]]:
    """Methods and paths of calls about a provider's kept objects."""
    return sorted({call for dialect in client_apis().values() for call in dialect.endpoints.calls})


def azure(path: str) -> Mapping[str, str]:
    """Azure OpenAI's aliases of an OpenAI `path`: the path of version 1, and older ones with an `api-version` in the
    query.

    Source: https://learn.microsoft.com/en-us/azure/ai-foundry/openai/api-version-lifecycle
    """
    tail = path.removeprefix("/v1")
    return dict.fromkeys((f"/openai{path}", f"/openai{tail}", f"/openai/deployments/{PLACE}{tail}"), path)


class Finder:
    """Finds the endpoint of a client's path, including aliases and paths with a model's name."""

    def __init__(self, dialects: Iterable[ClientAPI]) -> None:
        self._plain: dict[str, tuple[ClientAPI, Endpoint]] = {}
        self._marked: dict[str, tuple[ClientAPI, Endpoint]] = {}
        self._named: list[tuple[re.Pattern[str], ClientAPI, Endpoint]] = []
        self._calls: list[tuple[re.Pattern[str], str, ClientAPI, Endpoint]] = []
        for dialect in dialects:
            endpoints = dialect.endpoints
            for (method, pattern), operation in endpoints.calls.items():
                endpoint = Endpoint(pattern, operation, query=endpoints.call_query)
                called = pattern.replace(ID, f"{KEPT}{ID}") if endpoints.names else pattern
                self._calls.append((re.compile(path_regex(called)), method, dialect, endpoint))
            for pattern, path in {**{path: path for path in endpoints.paths}, **endpoints.aliases}.items():
                endpoint = Endpoint(path, endpoints.paths[path], alias=pattern != path)
                if PLACE in pattern:
                    self._named.append((re.compile(path_regex(pattern)), dialect, endpoint))
                else:
                    (self._marked if endpoints.marked else self._plain)[pattern] = dialect, endpoint
        # The most specific first.
        self._calls.sort(key=lambda call: (call[2].endpoints.marked, len(call[0].pattern)), reverse=True)

    def find(self, path: str, headers: Mapping[str, str] = NO_HEADERS) -> tuple[ClientAPI, Endpoint] | None:
        """Dialect and endpoint of `path`, which has no query; None for an unknown path."""
        found = self._plain.get(path)
        if found is not None:
            if path in self._marked and self._marked[path][0].endpoints.version in headers:
                return self._marked[path]
            return found
        for regex, dialect, endpoint in self._named:
            if (match := regex.fullmatch(path)) and is_name(model := unquote(match[1])):
                return dialect, replace(endpoint, model=model)
        return None

    def calls(self, path: str, headers: Mapping[str, str] = NO_HEADERS) -> Mapping[str, tuple[ClientAPI, Endpoint]]:
        """Calls about a kept object at `path`, by method."""
        found: dict[str, tuple[ClientAPI, Endpoint]] = {}
        for regex, method, dialect, endpoint in self._calls:
            if dialect.endpoints.marked and dialect.endpoints.version not in headers:
                continue
            if match := regex.fullmatch(path):
                found.setdefault(method, (dialect, replace(endpoint, id=match[1])))
        return found


def path_regex(pattern: str) -> str:
    """Regular expression, for Python and RE2, of the paths that match `pattern`."""
    place, there = (ID, "([A-Za-z0-9_-]+)") if ID in pattern else (PLACE, "(.+)")
    return re.escape(pattern).replace(re.escape(place), there).replace(re.escape(ANY), "[^/]+")


def is_name(text: str) -> bool:
    """True for a model's name in a path: no segment, plain or unescaped, is empty, `.` or `..`."""
    return bool(text) and not any(part in ("", ".", "..") for part in text.split("/"))


def serving(path: str) -> ClientAPI | None:
    """The dialect of a path with values for its placeholders; None for an unknown path."""
    found = Finder(client_apis().values()).find(path)
    return None if found is None else found[0]


def speaking(path: str, headers: Mapping[str, str]) -> ClientAPI:
    """The dialect of a client with an unknown path, guessed from its API's other paths or its headers; otherwise the
    first dialect.
    """
    for dialect in client_apis().values():
        endpoints = dialect.endpoints
        below = (*endpoints.paths, *([endpoints.models_path] if endpoints.models_path else []))
        if endpoints.version in headers or path in below or any(path.startswith(f"{served}/") for served in below):
            return dialect
    return by_path()["/v1/chat/completions"]


@cache
def rates() -> tuple[str, ...]:
    """Prefixes of providers' rate-limit headers."""
    return tuple(dict.fromkeys(dialect.able.rates for dialect in provider_apis().values() if dialect.able.rates))


@cache
def fixed_fields() -> Sequence[str]:
    """Fields that no target may change in any API, see `Fields.fixed`."""
    return tuple(dict.fromkeys(name for dialect in client_apis().values() for name in dialect.fields.fixed))


@cache
def output_limits() -> Sequence[str]:
    """Names of fields that limit the output, in all APIs."""
    return tuple(dict.fromkeys(name for dialect in client_apis().values() for name in dialect.fields.output_limits))


@cache
def fields_that_ask_for(need: str) -> frozenset[str]:
    """Fields that can ask for an ability, in all APIs."""
    return frozenset(name for dialect in client_apis().values() for name in dialect.fields.needs.get(need, ()))
