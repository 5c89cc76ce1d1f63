"""Search for ids of a provider's kept objects in a request or an answer.

Sources: the types of the SDKs openai (types/responses, types/chat), anthropic (types/beta/message_create_params.py) and
google-genai (types.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from extproc.words.api import Found, Objects

NAMES: Mapping[str, str] = {
    **dict.fromkeys(("file_id", "file_ids", "input_file_id", "output_file_id", "error_file_id"), "file"),
    **dict.fromkeys(("vector_store_id", "vector_store_ids"), "vector store"),
    **dict.fromkeys(("previous_response_id", "comparison_response_id"), "response"),
    "conversation_id": "conversation",
    "container_id": "container",
    "skill_id": "skill",
    "tunnel_id": "tunnel",
    "prompt_id": "prompt",
    "assistant_id": "assistant",
    "approval_request_id": "item",
    "previous_message_id": "message",
    "user_profile_id": "user profile",
    **dict.fromkeys(("cachedContent", "cached_content"), "cached content"),
    **dict.fromkeys(("fileUri", "file_uri", "gcsUri", "gcs_uri"), "file"),
    **dict.fromkeys(("fileSearchStoreNames", "file_search_store_names"), "file search store"),
    **dict.fromkeys(("ragCorpus", "rag_corpus", "ragFileIds", "rag_file_ids"), "corpus"),
    **dict.fromkeys(("datastore", "dataStore", "data_store"), "data store"),
}
"""Fields whose strings, or lists of strings, are object ids in every API."""

_URIS = ("fileUri", "file_uri", "gcsUri", "gcs_uri")
_PROVIDERS = "googleapis.com"
_CLIENTS = frozenset(
    (
        *("parameters", "parametersJsonSchema", "parameters_json_schema", "input_schema", "schema", "json_schema"),
        *("responseSchema", "response_schema", "responseJsonSchema", "response_json_schema", "metadata", "labels"),
        *("args", "arguments"),
    )
)
"""Fields with the client's own JSON: schemas, arguments of its tools, labels."""
_ECHOES = ("annotations", "results", "citations", "approval_request_id")
"""Fields of earlier answers whose ids a provider does not look up."""
_OWN = "anthropic"
"""Type of Anthropic's own skills, which every client may name."""

_named = re.compile(f'"(?:{"|".join(sorted(map(re.escape, NAMES), key=len, reverse=True))})"'.encode()).search


def names(objects: Objects) -> frozenset[str]:
    """Fields of which a request with an object's id has at least one, except for ids of items."""
    return frozenset((*NAMES, *(path.removesuffix(".id").rpartition(".")[2] for path in objects.at)))


def in_request(body: Mapping[str, Any], objects: Objects, *, named: bool = True) -> Sequence[Found]:
    """Ids of objects in a request. `named` is False without any of `names` in it."""
    found = [*_walk(body, objects.at, objects.clients)] if named else []
    if objects.items and isinstance(items := body.get(objects.items), list):
        found += _items(items, objects)
    return found


def in_answer(tree: Any, objects: Objects) -> Sequence[Found]:
    """Ids of objects in an event, or in a plain answer."""
    return list(_walk(tree, objects.answers, frozenset()))


def may_answer(data: bytes, objects: Objects) -> bool:
    """False for an event without an object's id."""
    return _named(data) is not None or any(mark in data for mark in objects.marks)


def _walk(tree: Any, at: Mapping[str, str], clients: frozenset[str]) -> Iterator[Found]:
    waiting: list[tuple[str, Any, bool]] = [("", tree, True)]
    while waiting:
        path, node, refers = waiting.pop()
        if isinstance(node, list):
            waiting += [(path, each, refers) for each in node if isinstance(each, dict | list)]
            continue
        if not isinstance(node, dict):
            continue
        for key, value in node.items():
            if not isinstance(value, str | dict | list):
                continue
            here = f"{path}.{key}" if path else key
            kind = at.get(here) or NAMES.get(key)
            if kind and isinstance(value, str):
                if _is_object(key, value, node):
                    yield Found(kind, here, node, key, refers and key not in _ECHOES)
            elif kind and isinstance(value, list):
                for index, each in enumerate(value):
                    if isinstance(each, str) and each:
                        yield Found(kind, here, value, index, refers)
            if not isinstance(value, str) and key not in _CLIENTS and here not in clients:
                waiting.append((here, value, refers and key not in _ECHOES))


def _is_object(name: str, value: str, holder: Mapping[str, Any]) -> bool:
    """False for an empty string, a web address, and a provider's own skill."""
    if name in _URIS and value.startswith(("https://", "http://")):
        try:
            host = urlsplit(value).hostname or ""
        except ValueError:
            return True
        return host == _PROVIDERS or host.endswith(f".{_PROVIDERS}")
    return bool(value) and not (name == "skill_id" and holder.get("type") == _OWN)


def _items(items: Sequence[Any], objects: Objects) -> Iterator[Found]:
    ids: dict[str, int] = {}
    known = [item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]
    for item in known:
        if not objects.refers(item, False):
            ids[item["id"]] = 1
    for item in known:
        yield Found("item", f"{objects.items}.id", item, "id", objects.refers(item, item["id"] in ids))
