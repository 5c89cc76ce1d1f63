"""The command line: one verb per line of the table in `main`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from extproc import __version__
from extproc.settings.config import ConfigError, Settings

if TYPE_CHECKING:
    from extproc.cli.tables import Gateway


def main() -> int:
    """Run one verb. Returns 0, or 1 after saying on standard error what is wrong."""
    parser = argparse.ArgumentParser(prog="extproc", description="An AI gateway for Envoy.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    table: list[tuple[str, str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = [
        ("up", "Envoy, the processor and the mock provider, for a laptop or one machine", _up_arguments, _up),
        ("serve", "the processor alone, beside an Envoy that someone else runs", _serve_arguments, _serve),
        ("envoy", "print the Envoy configuration", _envoy_arguments, _envoy),
        ("check", "validate and lint the settings, or explain what a request would meet", _check_arguments, _check),
        ("schema", "print the JSON Schema of the settings", _schema_arguments, _schema),
        ("usage", "who spent what: a table, from a running gateway", _usage_arguments, _usage),
        ("budgets", "what is left of budgets, and grants beyond them", _budgets_arguments, _budgets),
        ("keys", "make a gateway key, or hash one", _keys_arguments, _keys),
        ("mock", "the mock provider alone", _mock_arguments, _mock),
    ]
    for name, help_, arguments, run in table:
        verb = verbs.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        arguments(verb)
        verb.set_defaults(run=run)
    options = parser.parse_args()
    try:
        result: int = options.run(options)
    except (ConfigError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return result


def _config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, default=Path("gateway.yaml"), help="default: gateway.yaml")


# --- up, serve


def _up_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--envoy", default=None, help="the Envoy binary; default: the one of this Python environment")
    parser.add_argument("--concurrency", type=int, default=None, help="Envoy's worker threads; default: one per core")


def _up(options: argparse.Namespace) -> int:
    from extproc.cli.up import up  # noqa: PLC0415

    return up(options.config, envoy=options.envoy, concurrency=options.concurrency)


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--socket", help="listen here instead of where the settings say")
    parser.add_argument(
        "--secrets", type=Path, metavar="DIR", help="keep the providers' keys and tokens there, for Envoy"
    )
    parser.add_argument("--drain-notice", type=float, default=3.0, help="seconds for Envoy to see that we are leaving")
    parser.add_argument("--drain-grace", type=float, default=600.0, help="seconds for streams to end")


def _serve(options: argparse.Namespace) -> int:
    import uvloop  # noqa: PLC0415

    from extproc.server.processor import Processor, run  # noqa: PLC0415
    from extproc.settings import config  # noqa: PLC0415
    from extproc.telemetry.lines import Lines, LinesHandler  # noqa: PLC0415
    from extproc.telemetry.logs import JSONFormatter  # noqa: PLC0415

    handler = LinesHandler(Lines(sys.stderr.fileno(), 1 << 20, lambda: None))
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    settings = config.load(options.config)
    for doubt in config.lint(options.config):
        logging.getLogger("extproc").warning("%s", doubt.show(str(options.config)))

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        processor = Processor(options.config, settings, socket=options.socket, secrets=options.secrets)
        await run(
            processor,
            stopped,
            lambda: print("extproc is ready", file=sys.stderr, flush=True),
            notice=options.drain_notice,
            grace=options.drain_grace,
        )

    uvloop.run(serve())
    return 0


# --- envoy, check, schema, keys, mock


def _envoy_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--attach", action="store_true", help="only the filter, for somebody else's Envoy")
    parser.add_argument(
        "--secrets", metavar="DIR", help="where Envoy finds the providers' keys; they are written there"
    )
    parser.add_argument("-o", "--output", type=Path, help="write here instead of to standard output")


def _envoy(options: argparse.Namespace) -> int:
    from extproc import envoy_config  # noqa: PLC0415
    from extproc.settings import config  # noqa: PLC0415

    settings = config.load(options.config)
    if options.attach:
        _check_attach(options.config, settings)
        text = envoy_config.attach(settings)
    else:
        secrets = options.secrets or "/run/extproc/secrets"
        if options.secrets:
            envoy_config.write_secrets(settings, secrets)
        text = envoy_config.render(envoy_config.bootstrap(settings, secrets_dir=secrets))
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        partial = options.output.with_name(options.output.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.rename(options.output)
    return 0


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--attach", action="store_true", help="also say what attach mode cannot do")
    explain = parser.add_argument_group("what a request would meet, and why; exit code 1 when it would be refused")
    explain.add_argument("--explain", nargs="?", const="", metavar="FILE", help="its JSON body; - for standard input")
    explain.add_argument("--model", help="in place of FILE's; without FILE, a minimal request for this model")
    explain.add_argument("--path", help="default: /v1/chat/completions")
    who = explain.add_mutually_exclusive_group()
    who.add_argument("--consumer", metavar="NAME", help="who asks")
    who.add_argument("--key", metavar="env:NAME|file:PATH", help="where the gateway key is with which it is asked")
    explain.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")


def _check(options: argparse.Namespace) -> int:
    from extproc.settings import config  # noqa: PLC0415

    settings = config.load(options.config)
    if options.attach:
        _check_attach(options.config, settings)
    if options.explain is not None:
        return _explain(options, settings)
    if options.model or options.path or options.consumer or options.key or options.label:
        raise ValueError("--model, --path, --consumer, --key and --label say what to --explain")
    for doubt in config.lint(options.config):
        print(f"{doubt.show(str(options.config))} (warning)")
    print(f"{options.config}: ok")
    return 0


_PATH = "/v1/chat/completions"
_LEAST: Mapping[str, Mapping[str, object]] = {
    "/v1/embeddings": {"input": "Hello"},
    _PATH: {"messages": [{"role": "user", "content": "Hello"}]},
}


def _explain(options: argparse.Namespace, settings: Settings) -> int:
    from extproc.cli.explain import explain  # noqa: PLC0415
    from extproc.cli.question import Question  # noqa: PLC0415

    labels = [label.partition("=") for label in options.label]
    if not all(name and equals for name, equals, _ in labels):
        raise ValueError("a label is given as --label name=value")
    question = Question(
        _body(options, settings),
        options.path or _PATH,
        options.consumer,
        None if options.key is None else _secret(options.key, "--key"),
        {name: value for name, _, value in labels},
        options.attach,
    )
    explanation = asyncio.run(explain(settings, question))
    print("\n".join(explanation.lines))
    return 0 if explanation.forwarded else 1


def _body(options: argparse.Namespace, settings: Settings) -> bytes:
    """The request to explain. What the gateway would not read keeps its model, and is refused as it is."""
    from extproc.forward import patch  # noqa: PLC0415
    from extproc.framing.json import InvalidJSON, parse  # noqa: PLC0415

    limits = settings.limits
    if not options.explain:
        if not options.model:
            raise ValueError("--explain needs a request: a FILE, - for standard input, or --model NAME")
        return json.dumps({"model": options.model, **_LEAST.get(options.path, _LEAST[_PATH])}).encode()
    with sys.stdin.buffer if options.explain == "-" else Path(options.explain).open("rb") as file:
        body = file.read(limits.request_body + 1)
    try:
        changes = options.model is not None and isinstance(parse(body, limits.json_depth), dict)
    except InvalidJSON:
        changes = False
    return patch(body, {"model": options.model}) if changes else body


def _check_attach(file: Path, settings: Settings) -> None:
    """Raise ConfigError when `settings` need the internal hop, which somebody else's Envoy does not have."""
    from extproc import envoy_config  # noqa: PLC0415
    from extproc.settings import config  # noqa: PLC0415

    if problems := envoy_config.attach_problems(settings):
        raise ConfigError(str(file), config.locate(file, problems))


def _schema_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="a page for people instead")
    parser.add_argument("--providers", type=Path, metavar="DIR", help="write a page for each kind of provider there")


def _schema(options: argparse.Namespace) -> int:
    from extproc.settings.reference import json_schema, markdown, provider_pages  # noqa: PLC0415

    if options.providers is not None:
        options.providers.mkdir(parents=True, exist_ok=True)
        for name, text in provider_pages().items():
            (options.providers / name).write_text(text, encoding="utf-8")
        return 0
    if options.markdown:
        sys.stdout.write(markdown())
        return 0
    print(json.dumps(json_schema(), indent=2))
    return 0


def _keys_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key-secret", default="env:EXTPROC_KEY_SECRET", help="auth.key_secret of the settings")
    parser.add_argument("--stdin", action="store_true", help="hash the key on standard input instead of making one")


def _keys(options: argparse.Namespace) -> int:
    from extproc.auth import hash_key, make_key  # noqa: PLC0415

    secret = _secret(options.key_secret, "--key-secret", "; make one with: openssl rand -hex 32")
    if options.stdin:
        print(f"hash: {hash_key(sys.stdin.readline().strip(), secret)}")
        return 0
    key = make_key()
    print(f"key:  {key}\nhash: {hash_key(key, secret)}")
    print("Give the key to its owner; put `{hash: …}` in the consumer's keys. The key is not stored.", file=sys.stderr)
    return 0


def _secret(reference: str, option: str, hint: str = "") -> str:
    """The secret that an option refers to. Raises ValueError, which does not repeat what may be the secret itself."""
    from extproc.words.values import Secret, is_variable  # noqa: PLC0415

    scheme, _, where = reference.partition(":")
    if not where or not (scheme == "file" or (scheme == "env" and is_variable(where))):
        raise ValueError(f"{option} is a reference: env:NAME or file:/path")
    secret = Secret(scheme, where).read()
    if secret is None:
        raise ValueError(f"{reference} is not set{hint}")
    return secret


# --- usage, budgets


def _gateway_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--url", help="the admin API; default: where the settings say, with their token")
    parser.add_argument("--token", metavar="env:NAME|file:PATH", help="where the admin token is")


def _ask(options: argparse.Namespace) -> Gateway:
    """The admin API of `--url`, else of the settings. Their token is for their address alone."""
    from extproc.cli.tables import Gateway  # noqa: PLC0415
    from extproc.settings import config  # noqa: PLC0415

    token = None if options.token is None else _secret(options.token, "--token")
    if options.url is not None:
        return Gateway(options.url, token)
    admin = config.load(options.config).admin
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(admin.address, admin.address)  # noqa: S104
    if token is None and admin.token is not None:
        token = _secret(str(admin.token), "admin.token")
    return Gateway(f"http://[{host}]:{admin.port}" if ":" in host else f"http://{host}:{admin.port}", token)


def _usage_arguments(parser: argparse.ArgumentParser) -> None:
    _gateway_arguments(parser)
    parser.add_argument("--start", metavar="DATE", help="or RFC 3339, inclusive; default: the month's beginning, UTC")
    parser.add_argument("--end", metavar="DATE", help="or RFC 3339, exclusive; default: the month's end")
    parser.add_argument("--resolution", choices=["hour", "day", "month", "total"], default="total")
    parser.add_argument("--group-by", metavar="FIELDS", default="team,consumer", help="default: team,consumer")
    parser.add_argument(
        "--only", action="append", default=[], metavar="FIELD=VALUE", help="may be repeated; label.agent=x too"
    )
    parser.add_argument("--format", choices=["table", "json", "csv"], default="table")


def _usage(options: argparse.Namespace) -> int:
    from extproc.cli.tables import usage_table  # noqa: PLC0415

    only = [text.partition("=") for text in options.only]
    if not all(name and equals for name, equals, _ in only):
        raise ValueError("--only is given as field=value")
    given = {name: getattr(options, name) for name in ("start", "end", "resolution", "group_by")}
    parameters = [(name, value) for name, value in given.items() if value]
    parameters += [(name, value) for name, _, value in only]
    gateway = _ask(options)
    if options.format == "table":
        print(usage_table(gateway.json("/usage", parameters)))
    else:
        print(gateway.text("/usage", [*parameters, ("format", options.format)]).rstrip())
    return 0


def _budgets_arguments(parser: argparse.ArgumentParser) -> None:
    _gateway_arguments(parser)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument(
        "--grant",
        nargs=3,
        metavar=("BUDGET", "SCOPE", "AMOUNT"),
        help="give one scope so much beyond the limit until its window ends: team-month team-month:team=search 25",
    )


def _budgets(options: argparse.Namespace) -> int:
    from extproc.cli.tables import budgets_table, safe  # noqa: PLC0415

    gateway = _ask(options)
    if options.grant is not None:
        given = gateway.json("/grants", body=dict(zip(("budget", "scope", "amount"), options.grant, strict=True)))
        print(safe(f"granted {given['amount']} to {given['scope']} until {given['expires_at']} ({given['id']})", 4096))
    elif options.format == "json":
        print(gateway.text("/budgets"))
    else:
        print(budgets_table(gateway.json("/budgets")))
    return 0


def _mock_arguments(parser: argparse.ArgumentParser) -> None:
    if "mock" in sys.argv:  # its server is not loaded for any other verb
        from extproc import mock  # noqa: PLC0415

        mock.add_arguments(parser)


def _mock(options: argparse.Namespace) -> int:
    from extproc import mock  # noqa: PLC0415

    return mock.run(options)


if __name__ == "__main__":
    # gRPC's own C logging prints addresses and tokens of peers at some levels; nothing below an error is wanted.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    sys.exit(main())
