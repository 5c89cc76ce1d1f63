"""`extproc mcp`: what MCP servers offer, the pins of their definitions, and the end of a user's sign-in."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from extproc.cli._admin import add_gateway, connect
from extproc.cli._tables import safe
from extproc.tools.mcp.catalogue import INSTRUCTIONS, NOUNS
from extproc.tools.mcp.pins import Key, Lock, OldError, changes, load, write

EXAMPLES = """\
  extproc mcp list                  servers, the state of each of their definitions, and those left out
  extproc mcp diff                  what is new, changed or gone since they were pinned, with the texts
  extproc mcp pin                   pin all definitions as they are now
  extproc mcp pin --server github   those of one server; the others stay as they are pinned
  extproc mcp sign-out --server github --consumer acme --issuer https://idp.acme.com --subject alice
"""


_WIDEST = 4096


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["list", "diff", "pin", "sign-out"], help="what to do")
    parser.add_argument("--server", action="append", help="only this server; may be repeated")
    parser.add_argument("--consumer", default="", help="of sign-out: the consumer")
    parser.add_argument("--issuer", default="", help="of sign-out: subject_issuer in the log of the user's calls")
    parser.add_argument("--subject", default="", help="of sign-out: subject in the log of the user's calls")
    parser.add_argument("--file", type=Path, help="the lock file (default: mcp.pins.file of the settings)")
    add_gateway(parser)


def run(options: argparse.Namespace) -> int:
    """Raises OSError when the gateway does not answer, ValueError when it refuses."""
    if options.what == "sign-out":
        return _sign_out(options)
    servers = connect(options).json("/tools", [("definitions", "true")])["data"]
    chosen = _chosen(servers, options.server)
    if options.what == "list":
        for line in _listed(chosen):
            print(safe(line, 500))
        return 0
    file = options.file or _file(options)
    known = _known(file)
    away = [each["name"] for each in chosen if each["read_at"] is None]
    if away:
        print(f"not read yet, so left as pinned: {', '.join(away)}", file=sys.stderr)
        if len(away) == len(chosen):
            raise ValueError("the gateway has read none of these servers: are they up?")
    chosen = [each for each in chosen if each["read_at"] is not None]
    found = {each["name"]: {_key(one): one["digest"] for one in _definitions(each)} for each in chosen}
    if options.what == "diff":
        differences = list(_differences(known, found, chosen))
        for line in differences or ["nothing differs"]:
            print(safe(line, _WIDEST))
        return 1 if differences else 0
    before = {name: pins for name, pins in known.items() if name in found}
    file.write_text(write({**known, **found}), encoding="utf-8")
    for server, key, word in changes(before, found):
        print(safe(f"{word}: {_named(server, *key)}", 500))
    print(f"{sum(map(len, found.values()))} definitions pinned in {file}")
    return 0


def _sign_out(options: argparse.Namespace) -> int:
    if not options.server or len(options.server) > 1 or not options.consumer:
        raise ValueError("sign-out takes one --server and a --consumer")
    names = ("consumer", "issuer", "subject")
    body = {"server": options.server[0], **{name: getattr(options, name) for name in names}}
    connect(options).json("/sign-ins/end", body=body)
    print(safe(f"{options.consumer} {options.subject}".rstrip() + f" is signed out of {options.server[0]}"))
    return 0


def _known(file: Path) -> Lock:
    """The pins of a file; empty without a file, or if the file has an older version. Raises ValueError."""
    try:
        return load(file)
    except FileNotFoundError:
        return {}
    except OldError as error:
        print(f"{file}: {error}", file=sys.stderr)
        return {}


def _definitions(server: Any) -> Sequence[Any]:
    return [*server["tools"], *server["others"]]


def _key(definition: Any) -> Key:
    return definition["kind"], definition["name"]


def _named(server: str, kind: str, name: str) -> str:
    """A definition for people: `github/add`, `github prompt greet`, `github instructions`."""
    if kind == "tools":
        return f"{server}/{name}"
    return f"{server} {NOUNS[kind]}" + ("" if kind == INSTRUCTIONS else f" {name}")


def _chosen(servers: Sequence[Any], names: Sequence[str] | None) -> Sequence[Any]:
    if names is None:
        return servers
    known = {each["name"] for each in servers}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no MCP server {name!r}")
    return [each for each in servers if each["name"] in names]


def _file(options: argparse.Namespace) -> Path:
    from extproc.settings import config  # noqa: PLC0415 - with --file it would take three quarters of the time

    settings = config.load(options.config).mcp
    if settings is None or settings.pins is None:
        raise ValueError("the settings name no mcp.pins.file: give --file")
    return Path(settings.pins.file)


def _listed(servers: Sequence[Any]) -> Iterator[str]:
    for server in servers:
        state = server["error"] or ("not read yet" if server["read_at"] is None else f"{len(server['tools'])} tools")
        yield f"{server['name']}: {state}"
        for each in _definitions(server):
            name = each["name"] if each["kind"] == "tools" else _named("", *_key(each)).strip()
            reason = (" (app)" if each.get("app") else "") + (f" ({each['reason']})" if each["reason"] else "")
            yield f"  {each['state']:9} {each['digest'][:12]}  {name}{reason}"
        for each in server["left_out"]:
            noun = "" if each["kind"] == "tools" else NOUNS[each["kind"]] + " "
            yield f"  {'left out':23} {noun}{each['name'] or '?'} ({each['reason']})"


def _differences(known: Lock, found: Lock, servers: Sequence[Any]) -> Iterator[str]:
    """Differences from the pins. A pin is only a digest, so a changed definition is shown with its current text."""
    shown = {(server["name"], _key(each)): each for server in servers for each in _definitions(server)}
    for server, key, word in changes({name: known.get(name, {}) for name in found}, found):
        yield f"{word}: {_named(server, *key)}"
        if word != "gone":
            each = shown[server, key]
            if each["state"] == "withheld":
                yield f"    withheld: {each['reason']}"
            for line in msgspec.json.format(msgspec.json.encode(each["definition"]), indent=2).decode().splitlines():
                yield f"    {_visible(line)}"


def _visible(line: str) -> str:
    """A line whose hidden characters can be seen."""
    return line if line.isprintable() else "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in line)
