"""The settings for people and editors, from the same types that read them: a page, and a JSON Schema."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any

from extproc.dialects import client_apis, families
from extproc.settings.config import Settings
from extproc.upstream.providers import Provider, kinds
from extproc.words.values import DURATION, SECRET, SIZE, show_duration, show_size

_HEAD = """# Every setting

Look up the keys of `gateway.yaml` here: their values, their defaults, and when to change them.

`make docs` generates this page from the types that read the file. `extproc schema` prints the same as JSON Schema, for
completion in editors.

| value | written as |
|---|---|
| duration | a number with a unit: `250ms`, `30s`, `5m`, `2h`, `7d` |
| size | bytes, or a number with a unit: `64KiB`, `10MiB` |
| date | `2027-01-31` |
| secret | a reference, `env:NAME` or `file:/path`, never the secret itself |
| pattern | a name with `*` for any characters: `claude-*` |
"""


_PROVIDERS_HEAD = """# Providers

Find the settings of your provider: each kind has a page with an example. `make docs` generates these pages from
`extproc/upstream/providers/`.

A provider that does not speak the client's API gets a [translated](../translation.md) request.
[Credentials](credentials.md) explains keys and the tokens of clouds.

| kind | provider | APIs |
|---|---|---|"""

_ENDLESS = 10**12
"""A maximum above this one is not shown, because it does not help a reader."""
_WORDS = {DURATION: "duration", SIZE: "size", SECRET: "secret"}
_WRITERS: Mapping[str, Callable[[Any], str]] = {DURATION: show_duration, SIZE: show_size}


def json_schema() -> Mapping[str, Any]:
    """The JSON Schema of the filter YAML, with its defaults as people write them: `30d`, `20MiB`."""
    schema = Settings.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for value in section.get("properties", {}).values():
            write = _WRITERS.get(value.get("pattern", ""))
            if write is not None and value.get("default") is not None:
                value["default"] = write(value["default"])
    return schema


def markdown() -> str:
    """The reference of the filter YAML."""
    schema = json_schema()
    definitions = schema["$defs"]
    lines = [_HEAD]
    for name, value in schema["properties"].items():
        section, how = _section(value, definitions)
        about = value.get("description") or (section or {}).get("description", "")
        lines.append(f"## {name}\n\n{_flat(about)}\n")
        if kinds := _kinds(value, definitions):
            for kind, entry in kinds.items():
                lines += [f"Entries of kind `{kind}`:\n", *_table(entry, definitions), ""]
            continue
        if section is None:
            lines.append(f"Value: {_type(value, definitions)}. Default: {_default(value)}.\n")
            continue
        lines += [f"{how}\n"] if how else []
        lines += _table(section, definitions)
        lines.append("")
    return "\n".join(lines)


def provider_pages() -> Mapping[str, str]:
    """A page for each kind of provider, by file name, and a list of them."""
    pages = {f"{kind}.md": _provider_page(kind, provider) for kind, provider in kinds().items()}
    rows = [
        f"| [{kind}]({kind}.md) | {_about(kind)} | {', '.join(f'`{name}`' for name in provider.dialects)} |"
        for kind, provider in sorted(kinds().items())
    ]
    return {"README.md": "\n".join([_PROVIDERS_HEAD, *rows, ""]), **pages}


def _about(kind: str) -> str:
    """The first line of the docstring of a kind's module."""
    text = sys.modules[f"extproc.upstream.providers.{kind}"].__doc__ or ""
    return text.split("\n\n", maxsplit=1)[0].replace("\n", " ").strip().replace("|", "\\|")


def _provider_page(kind: str, provider: Provider) -> str:
    text = (sys.modules[f"extproc.upstream.providers.{kind}"].__doc__ or "").strip()
    settings, model = provider.example
    name = kind.replace("_", "-")
    spoken = [f"`{dialect}`{_which(provider, dialect)}" for dialect in provider.dialects]
    known = families()
    here = {known[dialect] for dialect in provider.dialects}
    clients = [
        path
        for dialect in client_apis().values()
        for path in dialect.endpoints.paths
        if dialect.name in provider.dialects or (dialect.translation is not None and dialect.family in here)
    ]
    prices = f"catalogue `{provider.catalogue}`" if provider.catalogue else "`price` and `context` of the model"
    key = "signed by Envoy" if provider.signed_for else f"`{provider.credential.header}`"
    if provider.tokens:
        key += f", or `authorization` with [tokens of {provider.tokens}](credentials.md)"
    if not provider.key_required:
        key += ", optional"
    return f"""# {kind}

{text}

```yaml
providers:
  {name}: {settings}
models:
  my-model: {{provider: {name}, model: "{model}"}}
auth: {{required: false}}
```

| | |
|---|---|
| address | {f"`{provider.base_url}`" if provider.base_url else "your own `base_url`"} |
| credential | {key} |
| speaks | {", ".join(spoken)} |
| clients may use | {", ".join(f"`{path}`" for path in sorted(clients))} |
| prices and contexts | {prices} |
| source | {provider.source} |
"""


def _which(provider: Provider, dialect: str) -> str:
    patterns = provider.models.get(dialect)
    return "" if patterns is None else f" ({', '.join(patterns)})"


def _section(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """The settings model of the object under a key, and the words for a list or mapping of such objects."""
    if "$ref" in value:
        return definitions[value["$ref"].rpartition("/")[2]], ""
    options = [item for item in value.get("anyOf", ()) if "$ref" in item or "$ref" in item.get("items", ())]
    if len(options) == 1:
        return _section(options[0], definitions)[0], ""
    if "items" in value and "$ref" in value["items"]:
        return _section(value["items"], definitions)[0], "A list. Each entry has these keys:"
    rest = value.get("additionalProperties")
    if isinstance(rest, dict) and "$ref" in rest:
        return _section(rest, definitions)[0], "A mapping of names. Each entry has these keys:"
    return None, ""


def _kinds(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The settings models of a list's entries, by `kind`; empty if there is only one."""
    mapping = value.get("items", {}).get("discriminator", {}).get("mapping", {})
    return {kind: definitions[name.rpartition("/")[2]] for kind, name in sorted(mapping.items())}


def _table(section: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    if not prefix:
        yield "| key | value | default | meaning |"
        yield "|---|---|---|---|"
    required = section.get("required", ())
    for name, value in section["properties"].items():
        inner, _ = _section(value, definitions)
        if inner is not None and "$ref" in value:
            yield from _table(inner, definitions, f"{prefix}{name}.")
            continue
        default = "required" if name in required else _default(value)
        text = _flat(value.get("description", "")).replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_type(value, definitions)} | {default} | {text} |"
        if inner is not None:
            listed = any("items" in item for item in (value, *value.get("anyOf", ())))
            marker = "[]" if listed else ".*" if "additionalProperties" in value else ""
            yield from _table(inner, definitions, f"{prefix}{name}{marker}.")


def _flat(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


def _type(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "enum" in value:
        return " \\| ".join(f"`{item}`" for item in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "anyOf" in value:
        return ", ".join(_type(item, definitions) for item in value["anyOf"] if item.get("type") != "null")
    if "$ref" in value:
        return "mapping"
    if (word := _WORDS.get(value.get("pattern", ""))) is not None:
        return word
    if value.get("examples"):
        return f"like `{value['examples'][0]}`"
    kind = str(value.get("format") or value.get("type", "value"))
    if kind == "array":
        return f"list of {_type(value['items'], definitions)}" if "items" in value else "list"
    if kind == "object":
        return "mapping"
    low, high = value.get("minimum"), value.get("maximum")
    if low is None:
        return kind
    return f"{kind}, at least {low}" if high is None or high > _ENDLESS else f"{kind}, {low} to {high:,}"


def _default(value: Mapping[str, Any]) -> str:
    """A default as people write it in YAML; empty for a key without a default."""
    default = value.get("default")
    if default in (None, "", date.min.isoformat()):
        return "not set"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list | tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`"
