"""`extproc envoy`: the Envoy configuration that belongs to the settings."""

from __future__ import annotations

import argparse
from pathlib import Path

from extproc import envoy_config
from extproc.cli._options import add_config
from extproc.settings import config
from extproc.settings.config import ConfigError, Settings

EXAMPLES = """\
  extproc envoy --secrets /run/extproc/secrets -o envoy.yaml     a whole configuration, and the key files it reads
  extproc envoy --attach                                         one HTTP filter, for an Envoy of your own
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--attach", action="store_true", help="print only the filter, for an Envoy of your own")
    parser.add_argument(
        "--secrets",
        metavar="DIR",
        help="write the providers' keys there, where Envoy reads them (default: only named, /run/extproc/secrets)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to this file, atomically")


def run(options: argparse.Namespace) -> int:
    """Print the configuration. Raises ConfigError."""
    settings = config.load(options.config)
    if options.attach:
        check_attach(options.config, settings)
        text = envoy_config.attach(settings)
    else:
        secrets = options.secrets or "/run/extproc/secrets"
        if options.secrets:
            envoy_config.write_secrets(settings, secrets)
        text = envoy_config.render(envoy_config.bootstrap(settings, secrets_dir=secrets))
    if options.output is None:
        print(text, end="")
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        partial = options.output.with_name(options.output.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.rename(options.output)
    return 0


def check_attach(file: Path, settings: Settings) -> None:
    """Raise ConfigError when `settings` need the internal hop, which attach mode does not have."""
    if problems := envoy_config.attach_problems(settings):
        raise ConfigError(str(file), config.locate(file, problems))
