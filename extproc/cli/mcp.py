"""`extproc mcp`: the tools that MCP servers offer, and the pins of their definitions."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from extproc.cli._admin import add_gateway, connect
from extproc.cli._tables import safe
from extproc.mcp.pins import FIELDS, Lock, changes, read, write

EXAMPLES = """\
  extproc mcp list                  servers, and the state of each of their tools
  extproc mcp diff                  what is new, changed or gone since the definitions were pinned, with the texts
  extproc mcp pin                   pin all definitions as they are now
  extproc mcp pin --server github   those of one server; the others stay as they are pinned
"""


_WIDEST = 4096


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["list", "diff", "pin"], help="what to do")
    parser.add_argument("--server", action="append", help="only this server; may be repeated")
    parser.add_argument("--file", type=Path, help="the lock file (default: mcp.pins.file of the settings)")
    add_gateway(parser)


def run(options: argparse.Namespace) -> int:
    """Raises OSError when the gateway does not answer, ValueError when it refuses."""
    servers = connect(options).json("/tools", [("definitions", "true")])["data"]
    chosen = _chosen(servers, options.server)
    if options.what == "list":
        for line in _listed(chosen):
            print(safe(line, 500))
        return 0
    file = options.file or _file(options)
    known = read(file.read_text(encoding="utf-8")) if file.exists() else {}
    if unread := [each["name"] for each in chosen if each["read_at"] is None]:
        raise ValueError(f"the gateway has not read the tools of {', '.join(unread)} yet: is the server up?")
    found = {each["name"]: {tool["name"]: tool["digest"] for tool in each["tools"]} for each in chosen}
    if options.what == "diff":
        differences = list(_differences(known, found, chosen))
        for line in differences or ["nothing differs"]:
            print(safe(line, _WIDEST))
        return 1 if differences else 0
    before = {name: pins for name, pins in known.items() if name in found}
    file.write_text(write({**known, **found}), encoding="utf-8")
    for server, tool, word in changes(before, found):
        print(safe(f"{word}: {server}/{tool}", 500))
    print(f"{sum(map(len, found.values()))} definitions pinned in {file}")
    return 0


def _chosen(servers: Sequence[Any], names: Sequence[str] | None) -> Sequence[Any]:
    if names is None:
        return servers
    known = {each["name"] for each in servers}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no MCP server {name!r}")
    return [each for each in servers if each["name"] in names]


def _file(options: argparse.Namespace) -> Path:
    from extproc.settings import config  # noqa: PLC0415 - with --file, three quarters of the time

    settings = config.load(options.config).mcp
    if settings is None or settings.pins is None:
        raise ValueError("the settings name no mcp.pins.file: give --file")
    return Path(settings.pins.file)


def _listed(servers: Sequence[Any]) -> Iterator[str]:
    for server in servers:
        state = server["error"] or ("not read yet" if server["read_at"] is None else f"{len(server['tools'])} tools")
        yield f"{server['name']}: {state}"
        for tool in server["tools"]:
            yield f"  {tool['state']:9} {tool['digest'][:12]}  {tool['name']}"


def _differences(known: Lock, found: Lock, servers: Sequence[Any]) -> Iterator[str]:
    """What differs from the pins. A pin is a digest, so the text of a changed definition is shown as it is now."""
    definitions = {(server["name"], tool["name"]): tool["definition"] for server in servers for tool in server["tools"]}
    for server, tool, word in changes({name: known.get(name, {}) for name in found}, found):
        yield f"{word}: {server}/{tool}"
        if word != "gone":
            shown = {name: definitions[server, tool][name] for name in FIELDS if name in definitions[server, tool]}
            for line in msgspec.json.format(msgspec.json.encode(shown), indent=2).decode().splitlines():
                yield f"    {_visible(line)}"


def _visible(line: str) -> str:
    """A line whose hidden characters can be seen."""
    return line if line.isprintable() else "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in line)
