"""`extproc check`: validate and lint the settings, or explain the way of a request."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from extproc.cli._options import add_config, read_secret
from extproc.cli._tables import painted
from extproc.settings import config
from extproc.settings.config import Settings
from extproc.settings.document import SettingsProblem
from extproc.words.values import offline

EXAMPLES = """\
  extproc check                                                     gateway.yaml here
  extproc check -c prod.yaml --attach                               for an Envoy of your own
  extproc check -c prod.yaml --offline                              settings of a cluster, in a CI job
  extproc check --stdin < new.yaml                                  a change that is not written yet
  extproc check --live                                              one small request to each provider
  extproc check --explain --model gpt-5.4 --consumer ci             a minimal request for a model
  extproc check --explain --tool dev/gh_get_issue --consumer ci     a call of a tool
  extproc check --explain body.json --key env:KEY --label run=7     a request of yours
"""

_PATH = "/v1/chat/completions"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--attach", action="store_true", help="report settings that attach mode cannot serve, too")
    parser.add_argument(
        "--offline",
        action="store_true",
        help="take secrets, files and packages that are missing here to be where the settings are used",
    )
    parser.add_argument(
        "--live", action="store_true", help="send one small request to each provider, through an Envoy of its own"
    )
    parser.add_argument(
        "--stdin", action="store_true", help="check the text on standard input as the new content of the file"
    )
    request = parser.add_argument_group(
        "explain", "Run the gateway's stages on one request. The exit code is 1 when it would be refused."
    )
    request.add_argument(
        "--explain", nargs="?", const="", metavar="FILE", help="JSON body of the request; - reads standard input"
    )
    request.add_argument("--model", help="model to ask for; without FILE, in a minimal request")
    request.add_argument("--tool", metavar="PROFILE/NAME", help="tool of the MCP gateway, in place of a model")
    request.add_argument("--path", help=f"path of the request (default: {_PATH})")
    who = request.add_mutually_exclusive_group()
    who.add_argument("--consumer", metavar="NAME", help="consumer that sends the request")
    who.add_argument("--key", metavar="env:NAME|file:PATH", help="gateway key that the request carries")
    request.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="label; may be repeated")


def run(options: argparse.Namespace) -> int:
    """Print problems of the settings, or an explanation. Raises ConfigError for settings that do not load."""
    with offline(options.offline):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    if options.stdin and (options.live or options.attach or options.explain is not None):
        raise ValueError("--stdin goes with --offline alone")
    proposed = sys.stdin.buffer.read(config.MAX_FILE + 1) if options.stdin else None
    settings = config.load(options.config, proposed)
    ignored: Sequence[SettingsProblem] = ()
    if options.attach:
        from extproc.cli.envoy import check_attach  # noqa: PLC0415 - Envoy's types: half of the time of a check

        ignored = check_attach(options.config, settings)
    if options.explain is not None:
        return _explain(options, settings)
    if options.model or options.tool or options.path or options.consumer or options.key or options.label:
        raise ValueError("--model, --tool, --path, --consumer, --key and --label need --explain")
    for doubt in (*config.lint(options.config, proposed), *ignored):
        print(painted(f"{doubt.show(str(options.config))} (warning)", "doubtful"))
    print(painted(f"{options.config}: ok", "good"))
    if options.live:
        from extproc.cli._live import check_live  # noqa: PLC0415 - for this option alone

        return int(not check_live(settings, options.config))
    return 0


def _explain(options: argparse.Namespace, settings: Settings) -> int:
    from extproc.cli._explain import ExplainedRequest, explain  # noqa: PLC0415 - all stages: half of the time of a check

    labels = [label.partition("=") for label in options.label]
    if not all(name and equals for name, equals, _ in labels):
        raise ValueError("a label is given as --label name=value")
    given = {name: value for name, _, value in labels}
    if options.tool is not None:
        return _tool(options, settings, given)
    question = ExplainedRequest(
        _body(options, settings),
        options.path or _PATH,
        options.consumer,
        None if options.key is None else read_secret(options.key, "--key"),
        given,
        options.attach,
    )
    explanation = asyncio.run(explain(settings, question))
    print("\n".join(explanation.lines))
    return 0 if explanation.forwarded else 1


def _tool(options: argparse.Namespace, settings: Settings, labels: Mapping[str, str]) -> int:
    from extproc.cli._tools import explain_tool  # noqa: PLC0415

    if options.explain or options.model or options.path or options.key:
        raise ValueError("--tool takes --consumer and --label alone")
    lines, forwarded = asyncio.run(explain_tool(settings, options.tool, options.consumer, labels))
    print("\n".join(lines))
    return 0 if forwarded else 1


def _body(options: argparse.Namespace, settings: Settings) -> bytes:
    """The request to explain. A body that the gateway cannot parse keeps its model, and is refused unchanged."""
    from extproc.dialects import by_path, serving  # noqa: PLC0415 - as above
    from extproc.wire.framing.json import InvalidJSON, parse  # noqa: PLC0415
    from extproc.wire.framing.patch import patch  # noqa: PLC0415

    limits, dialect = settings.limits, serving((options.path or _PATH).partition("?")[0]) or by_path()[_PATH]
    if not options.explain:
        if not options.model:
            raise ValueError("--explain needs a request: a FILE, - for standard input, or --model NAME")
        return json.dumps(dialect.smallest(options.model)).encode()
    with sys.stdin.buffer if options.explain == "-" else Path(options.explain).open("rb") as file:
        body = file.read(limits.request_body + 1)
    try:
        changes = options.model is not None and isinstance(parse(body, limits.json_depth), dict)
    except InvalidJSON:
        changes = False
    return patch(body, {dialect.fields.model: options.model}) if changes and dialect.fields.model else body
