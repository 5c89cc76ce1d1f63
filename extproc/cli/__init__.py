"""The command line: `extproc VERB [options]`.

A verb is a module of this package with `EXAMPLES`, `arguments(parser)` and `run(options)`. Only the module of the given
verb is imported, so `extproc --help` does not wait for the gateway's own imports.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import keyword
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from extproc import __version__

VERBS: Mapping[str, Mapping[str, str]] = {
    "Run": {
        "up": "Run Envoy, the processor and the mock provider on this machine.",
        "serve": "Run the processor alone, beside an Envoy that is started separately.",
        "mock": "Run the mock provider alone.",
        "drain": "Let Envoy finish its requests before it is stopped.",
    },
    "Configure": {
        "init": "Write a first gateway.yaml for the providers you name.",
        "import": "Convert a configuration of LiteLLM's proxy.",
        "check": "Validate and lint the settings, or explain the way of a request.",
        "guardrails": "Try guardrails on the texts of a file, and count their findings.",
        "envoy": "Print the Envoy configuration that belongs to the settings.",
        "schema": "Print the JSON Schema or the reference pages of the settings.",
        "keys": "Make a gateway key, or hash an existing one.",
        "completion": "Print a script for the shell that completes verbs and options.",
    },
    "Ask a running gateway": {
        "usage": "Show requests, tokens and cost by team, consumer, model or label.",
        "budgets": "Show the room left in each budget, or grant more.",
        "approvals": "Show requests and calls of tools that wait for a person, and answer them.",
        "runs": "Show the runs of agents, or one with its calls, cost and refusals.",
        "compare": "Compare two targets, and say whether one can replace the other.",
        "replay": "Send recorded requests to another model, and compare its answers with the first ones.",
        "exchanges": "Show recent exchanges, follow them, or all that is known of one.",
        "reconcile": "Compare the ledger with a provider's report of costs, by cause.",
        "doctor": "Examine a running gateway and say what is wrong.",
        "audit": "Verify the audit trail, or a copy of it.",
        "ledger": "Export or forget a consumer's rows, or make the sums of reports anew.",
        "mcp": "Show the tools of MCP servers, or pin their definitions.",
        "cache": "Show the size of the cache of answers, or delete answers.",
    },
}
"""Groups of verbs, each verb with its description in one sentence."""

_EXAMPLES = """\
  extproc init openai anthropic                            a first gateway.yaml
  extproc up                                               everything on one machine, with a curl line to try
  extproc check                                            errors and lints of gateway.yaml, line by line
  extproc check --explain --model gpt-5.4 --consumer ci    the targets of a request, and why
  extproc usage --group-by team,model                      this month's spending
"""

_FAILED = {"reconcile": 2}
"""Exit codes of a failure for verbs whose 1 means something else: that a bill and the ledger differ."""
_BROKEN_PIPE = 141  # exit code that shells report for a program that SIGPIPE ended


def main() -> int:
    """Run the verb that the command line names. Returns the exit code.

    0 is success, 1 a failure with its reason on standard error (2 for verbs of `_FAILED`), 2 a command line that cannot
    be read, 130 Ctrl-C, and 141 when the reader of the output has gone (`extproc check | head`).
    """
    try:
        status = _run(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        return _BROKEN_PIPE
    except (OSError, ValueError) as error:
        with contextlib.suppress(BrokenPipeError):
            print(_error_text(error), file=sys.stderr)
        return _FAILED.get(next(iter(sys.argv[1:]), ""), 1)
    except KeyboardInterrupt:
        return 130
    else:
        return status
    finally:
        _abandon_output()


def _error_text(error: Exception) -> str:
    """The text of an operating system's error, with the file: `gateway.yaml: Permission denied`."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _run(words: Sequence[str]) -> int:
    summaries = {verb: summary for group in VERBS.values() for verb, summary in group.items()}
    if not words:
        print(_help(), file=sys.stderr)
        return 2
    verb, *rest = words
    if verb in ("-h", "--help", "help"):
        print(_help())
        return 0
    if verb == "--version":
        print(f"extproc {__version__}")
        return 0
    if verb not in summaries:
        import difflib  # noqa: PLC0415 - only this message needs it

        close = difflib.get_close_matches(verb, summaries, 1)
        hint = f"did you mean '{close[0]}'?" if close else "see extproc --help"
        print(f"extproc: there is no verb {verb!r}; {hint}", file=sys.stderr)
        return 2
    code = module(verb)
    parser = argparse.ArgumentParser(
        prog=f"extproc {verb}",
        description=summaries[verb],
        epilog=f"examples:\n{code.EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    code.arguments(parser)
    try:
        options = parser.parse_args(rest)
    except SystemExit as ended:  # argparse has printed help or an error
        if ended.code and rest and rest[0].endswith((".yaml", ".yml")) and "--config" in parser.format_help():
            print(f"extproc {verb} takes settings with -c: extproc {verb} -c {shlex.quote(rest[0])}", file=sys.stderr)
        return int(ended.code or 0)
    status: int = code.run(options)
    return status


def module(verb: str) -> Any:
    """The module of a verb. Raises OSError if it needs an extra that is not installed."""
    try:
        return importlib.import_module(f"extproc.cli.{verb}{'_' * keyword.iskeyword(verb)}")
    except ModuleNotFoundError as error:
        if error.name != "envoy_data_plane":
            raise
        extra = "local" if verb == "up" else "envoy"
        raise OSError(f"extproc {verb} needs the extra {extra!r}: pip install 'llm-extproc[{extra}]'") from None


def _help() -> str:
    lines = ["usage: extproc VERB [options]", "", "An AI gateway for Envoy."]
    for group, verbs in VERBS.items():
        lines += ["", f"{group}:", *(f"  {verb:<12}{summary}" for verb, summary in verbs.items())]
    return "\n".join([*lines, "", "Examples:", _EXAMPLES, "'extproc VERB --help' has the options of a verb."])


def _abandon_output() -> None:
    """Drop unwritable output, because the interpreter would try again at its end, and print an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, stream.fileno())
                os.close(nothing)
