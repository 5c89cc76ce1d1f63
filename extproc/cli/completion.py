"""`extproc completion`: a script with which the shell completes verbs, options and names of files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from extproc.cli import VERBS, module

EXAMPLES = """\
  extproc completion bash >> ~/.bashrc
  extproc completion zsh >> ~/.zshrc
  extproc completion fish > ~/.config/fish/completions/extproc.fish
"""

_BASH = """\
_extproc() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words="{verbs}"
  if ((COMP_CWORD > 1)); then
    case ${{COMP_WORDS[1]}} in
{cases}
      *) words="" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _extproc extproc
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="shell that reads the script")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    words = {verb: list(_words(verb)) for group in VERBS.values() for verb in group}
    if options.shell == "fish":
        for group in VERBS.values():
            for verb, summary in group.items():
                told = summary.replace("'", "\\'")
                print(f"complete -c extproc -n __fish_use_subcommand -a {verb} -d '{told}'")
                print(f"complete -c extproc -n '__fish_seen_subcommand_from {verb}' -a '{' '.join(words[verb])}'")
        return 0
    cases = "\n".join(f'      {verb}) words="{" ".join(found)}" ;;' for verb, found in words.items())
    if options.shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    print(_BASH.format(verbs=" ".join(words), cases=cases), end="")
    return 0


def _words(verb: str) -> Iterator[str]:
    """The options of a verb, and the choices of its first argument; empty if an extra is missing."""
    parser = argparse.ArgumentParser(prog=f"extproc {verb}")
    try:
        module(verb).arguments(parser)
    except OSError:
        return
    text = parser.format_help()
    positional = re.search(r"^positional arguments:\n  \{([^}]+)\}", text, re.MULTILINE)
    yield from positional[1].split(",") if positional else ()
    yield from dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
