"""`extproc envoy`: the Envoy configuration that belongs to the settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from extproc.cli._options import add_config
from extproc.envoy import resources
from extproc.envoy.resources.plain import plain
from extproc.settings import config
from extproc.settings.config import Settings
from extproc.settings.document import ConfigError, SettingsProblem

with plain():
    from extproc.envoy import envoy_config
    from extproc.envoy.envoy_config.dynamic import make

EXAMPLES = """\
  extproc envoy --secrets /run/extproc/secrets -o envoy.yaml     a whole configuration, and the key files it reads
  extproc envoy --admin-socket /run/envoy/admin.sock -o envoy.yaml     and an admin socket, for `extproc drain`
  extproc envoy --dynamic --secrets /run/extproc/secrets         the rest comes from the processor, and every change
  extproc envoy --attach                                         one HTTP filter, for an Envoy of your own
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--attach", action="store_true", help="print only the filter, for an Envoy of your own")
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="let Envoy get listeners and clusters from the processor, so that changes of them need no restart",
    )
    parser.add_argument(
        "--secrets",
        metavar="DIR",
        help="write the providers' keys there, where Envoy reads them (default: only named, /run/extproc/secrets)",
    )
    parser.add_argument(
        "--admin-socket",
        metavar="PATH",
        help="unix socket of mode 0600 for Envoy's admin interface, which `extproc drain` needs (default: none)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to this file, atomically")


def run(options: argparse.Namespace) -> int:
    """Print the configuration. Raises ConfigError."""
    settings = config.load(options.config)
    if options.attach:
        check_attach(options.config, settings)
        text = envoy_config.attach(settings)
    else:
        check_complete(options.config, settings)
        secrets = options.secrets or "/run/extproc/secrets"
        if options.secrets:
            envoy_config.write_secrets(settings, secrets)
            prepare(options.config, settings, secrets, dynamic=options.dynamic)
        tree = envoy_config.bootstrap(
            settings, secrets_dir=secrets, dynamic=options.dynamic, admin_socket=options.admin_socket
        )
        text = envoy_config.render(tree)
    if options.output is None:
        print(text, end="")
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        partial = options.output.with_name(options.output.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.rename(options.output)
    return 0


def prepare(file: Path, settings: Settings, secrets: str | Path, *, dynamic: bool, socket: str | None = None) -> None:
    """Write the first resources, which the processor gives to Envoy. Without `dynamic` nothing is written."""
    place = resources.file(secrets)
    if dynamic:
        resources.write(place, make(settings, config.text(file), str(secrets), socket=socket))
    else:
        place.unlink(missing_ok=True)


def check_complete(file: Path, settings: Settings) -> None:
    """Raise ConfigError when only attach mode can use `settings`."""
    if settings.processor.tls is not None:
        message = "is for attach mode: the Envoy of the complete gateway is beside the processor, give a socket"
        raise ConfigError(str(file), config.locate(file, [(("processor", "tls"), message)]))


def check_attach(file: Path, settings: Settings) -> Sequence[SettingsProblem]:
    """Find the settings that attach mode ignores. Raises ConfigError when `settings` need the internal hop, which
    attach mode does not have.
    """
    if problems := envoy_config.attach_problems(settings):
        raise ConfigError(str(file), config.locate(file, problems))
    return config.locate(file, envoy_config.attach_doubts(settings))
