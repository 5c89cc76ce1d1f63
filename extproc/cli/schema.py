"""`extproc schema`: the JSON Schema and the reference pages of the settings."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from extproc.settings.reference import json_schema, markdown, provider_pages

EXAMPLES = """\
  extproc schema > gateway.schema.json     for editors that complete and check YAML
  extproc schema --markdown                every key with its type, default and meaning
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="print the reference page instead")
    parser.add_argument("--providers", type=Path, metavar="DIR", help="write a page for each kind of provider there")


def run(options: argparse.Namespace) -> int:
    if options.providers is not None:
        options.providers.mkdir(parents=True, exist_ok=True)
        for name, text in provider_pages().items():
            (options.providers / name).write_text(text, encoding="utf-8")
    elif options.markdown:
        print(markdown(), end="")
    else:
        print(json.dumps(json_schema(), indent=2))
    return 0
