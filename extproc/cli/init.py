"""`extproc init`: a first settings file for the providers that one has."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path

from extproc.access.auth import make_key
from extproc.cli._litellm_names import KINDS
from extproc.cli._options import add_config
from extproc.dialects import by_path, families
from extproc.upstream.providers import kinds
from extproc.words.values import meant

EXAMPLES = """\
  extproc init                          gateway.yaml with the mock provider, which needs no key
  extproc init openai anthropic         gateway.yaml for these kinds of provider
  extproc init gemini bedrock grok      the same by the names that people use
  extproc init --list                   the kinds there are
"""

_SHORT = KINDS | {"claude": "anthropic", "google": "gcp_gemini", "grok": "x_ai", "vertex": "gcp_vertex_ai"}
"""Names that people use for kinds of provider."""
_MOST_TARGETS = 16  # most targets of a virtual model
_OWN = ("base_url", "account", "project")
"""Settings in a provider's example that every user has to replace."""

_HEAD = """\
# Settings of the gateway. Every key: `extproc schema --markdown`. Check the file: `extproc check`.

# This machine only. For others: 0.0.0.0 with TLS, or a load balancer in front.
listener: {address: 127.0.0.1, port: 10000}
"""

_TAIL = """
# Who may ask. `extproc keys` makes keys whose hash stands here in place of a variable.
consumers:
  - {name: me, team: mine, keys: [{env: EXTPROC_KEY}]}
teams:
  mine: {models: ["*"]}

# Limits are checked before a request leaves. `mode: shadow` only counts.
budgets:
  - {name: requests-per-minute, per: [consumer], unit: requests, limit: 600, window: minute}
  - {name: team-month, per: [team], unit: usd, limit: 100, window: month, alert_at: [0.75, 0.9]}

# Checks of prompts and answers. `action: audit` only counts; `mask` and `block` act.
guardrails:
  - {name: keys, kind: secrets, action: audit}
  # - {name: persons, kind: pii, action: mask}
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="kind of provider (default: mock)")
    parser.add_argument("--list", action="store_true", help="print the kinds of provider, and end")
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Write the file, and print what to do next. Raises ValueError for an unknown kind, FileExistsError."""
    if options.list:
        print("\n".join(sorted(kinds())))
        return 0
    named = options.kinds or ["mock"]
    chosen = {name: kind for name in named if (kind := name if name in kinds() else _SHORT.get(name.lower(), ""))}
    if unknown := [name for name in named if name not in chosen]:
        hints = {name: meant(name, kinds()) for name in unknown}
        lines = [f"there is no kind of provider {name!r}{f': {hint}' if hint else ''}" for name, hint in hints.items()]
        raise ValueError("\n".join([*lines, "`extproc init --list` prints the kinds"]))
    file: Path = options.config
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(compose(chosen))
    except FileExistsError:
        raise FileExistsError(f"{file} exists; remove it, or name another file with --config") from None
    print(_next(file, chosen))
    return 0


def compose(chosen: Mapping[str, str]) -> str:
    """The settings file for these providers, each name with its kind."""
    examples = {name: kinds()[kind].example for name, kind in chosen.items()}
    lines = [_HEAD, "providers:"]
    lines += [f"  {name}: {settings}" for name, (settings, _) in examples.items()]
    lines += ["", "# Names that clients use. `*` stands for every model of a provider."]
    lines += ["models:", *(f'  "{name}/*": {{provider: {name}}}' for name in chosen)]
    talking = [name for name, kind in chosen.items() if _talks(kind)][:_MOST_TARGETS]
    targets = ", ".join(f'{{model: "{name}/{examples[name][1]}"}}' for name in talking)
    if targets:
        lines += ["", "# One name for several targets: the next one serves when the first fails.", "virtual_models:"]
        lines += [f"  assistant: {{targets: [{targets}]}}"]
    return "\n".join(lines) + "\n" + _TAIL


def _talks(kind: str) -> bool:
    """True for a kind with chat models; other kinds have only embeddings and rerankers."""
    chat = by_path()["/v1/chat/completions"]
    return any(families()[name] == chat.family for name in kinds()[kind].dialects)


def _next(file: Path, chosen: Mapping[str, str]) -> str:
    """The steps from the file to a first answer."""
    examples = {name: kinds()[kind].example[0] for name, kind in chosen.items()}
    settings = " ".join(examples.values())
    given = "" if file == Path("gateway.yaml") else f" -c {file}"
    variables = [name for name in dict.fromkeys(re.findall(r"env:(\w+)", settings)) if not os.environ.get(name)]
    own = [f"`{key}` of {name}" for name, example in examples.items() for key in _OWN if f" {key}: " in example]
    return "\n".join(
        [
            f"{file} is written. Next:",
            "",
            *([f"  edit {file}: set your own {', '.join(own)}"] if own else []),
            *(f"  export {name}=…" for name in variables),
            f"  export EXTPROC_KEY={make_key()}      # made now, and stored nowhere: the key of your clients",
            f"  extproc check{given}",
            f"  extproc up{given}      # prints a curl line to try",
        ]
    )
