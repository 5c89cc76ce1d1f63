"""A plug-in is one file: it is found by its place, its settings are checked and documented, and no other file names it.

Modules whose names begin with an underscore are shared code. Each test adds a folder to the room, as if its files
belonged to the room, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import NamedTuple

import pytest

SHARED = 'raise AssertionError("a shared part is no plug-in")\n'

PROVIDER = """
    '''Acme.'''
    from extproc.upstream.providers import Provider
    PROVIDER = Provider(
        gen_ai_name="acme", source="https://acme.example", base_url="https://api.acme.example/v1",
        dialects=("openai_chat",), example=("{kind: acme, api_key: env:ACME_KEY}", "acme-1"),
    )
    """
GUARDRAIL = """
    from collections.abc import Sequence
    from typing import Literal
    from pydantic import Field
    from extproc.guardrails import Detector, Finding, GuardrailSettings

    class AcmeSettings(GuardrailSettings):
        kind: Literal["acme"]
        acme: Sequence[str] = Field(min_length=1, description="Words that stay here")

        def build(self):
            return Acme(self.acme)

    class Acme(Detector):
        def __init__(self, words):
            self._words = words

        def find(self, text, role, where):
            return [Finding(word, (at, at + len(word))) for word in self._words if (at := text.find(word)) >= 0]

    SETTINGS = AcmeSettings
    """
STORE = """
    import time
    from extproc.stores.memory import MemoryCounters

    def check(url):
        if url != "acme:here":
            raise ValueError("acme:here is the only one")

    def doubts(url):
        yield "is for tests"

    def from_url(url):
        return MemoryCounters(time.time)
    """
STRATEGY = """
    from extproc.routing.strategies.fallback import STRATEGY
    """

RUN = """
import contextlib, io, json, pathlib, sys
import {room}
from extproc.cli import main
{room}.__path__.append({folder!r})
ended = []
for yaml, arguments in {runs!r}:
    pathlib.Path("gateway.yaml").write_text(yaml)
    sys.argv = ["extproc", *arguments.split()]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main()
    ended.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(ended))
"""


class Ended(NamedTuple):
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def extproc(tmp_path):
    """`extproc(room, source, *runs)`: each run's status, output and errors. A run is a filter YAML and the arguments of
    the command line; all runs are in one process, with a plug-in `acme` in that room.
    """

    def run(room: str, source: str, *runs: tuple[str, str]) -> list[Ended]:
        folder = tmp_path / "room"
        folder.mkdir()
        (folder / "acme.py").write_text(textwrap.dedent(source))
        (folder / "_shared.py").write_text(SHARED)
        code = RUN.format(room=room, folder=str(folder), runs=runs)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return [Ended(*each) for each in json.loads(done.stdout)]

    return run


PLAIN = "providers: {a: {kind: mock}}\nmodels: {m: {provider: a}}\nauth: {required: false}\n"


def test_a_provider_is_found(extproc):
    yaml = "providers: {a: {kind: acme}}\nmodels: {m: {provider: a}}\nauth: {required: false}\n"
    check, pages = extproc("extproc.upstream.providers", PROVIDER, (yaml, "check"), (yaml, "schema --providers pages"))
    assert check.stdout.endswith("gateway.yaml: ok\n"), check.stderr
    assert (pages.status, pages.stderr) == (0, "")


def test_a_guardrail_is_found_beside_another_with_its_errors_and_its_reference(extproc):
    both = PLAIN + "guardrails: [{name: r, kind: regex, patterns: {a: b}}, {name: g, kind: acme, acme: [Hello]}]"
    wrong = [
        ("{name: a, kind: acme, acme: []}", "36: guardrails.0.acme: "),
        ("{name: b, kind: acme}", "14: guardrails.1.acme: "),
        ("{name: c, kind: acme, words: [a]}", "14: guardrails.2.acme: "),
        ("{name: c, kind: acme, words: [a]}", "36: guardrails.2.words: "),
        ("{name: d, kind: regex, patterns: {a: '(b'}}", "37: guardrails.3.patterns: a: "),
        ("{name: e, kind: else}", "24: guardrails.4.kind: there is no kind 'else'; there are acme, "),
        ("{name: f}", "14: guardrails.5.kind: "),
    ]
    entries = ",\n             ".join(dict.fromkeys(entry for entry, _ in wrong))
    yaml = f"{{providers: {{a: {{kind: mock}}}}, models: {{m: {{provider: a}}}},\nguardrails: [{entries}]}}"
    runs = (both, "check --explain --model m"), (yaml, "check"), ("", "schema --markdown")
    explained, checked, page = extproc("extproc.guardrails", GUARDRAIL, *runs)
    text = "g (acme, input, block): finds something in 'messages[0].content' and blocks it"
    assert text in explained.stdout, explained.stderr
    assert checked.status == 1
    for _, expected in wrong:
        assert f":{expected}" in checked.stderr
    section = page.stdout.partition("\n## guardrails\n")[2].partition("\n## ")[0]
    assert "| `acme` | list of string | required | Words that stay here |" in section
    assert "| `patterns` | mapping | required |" in section


def test_a_counter_store_is_found(extproc):
    yamls = [PLAIN + f"stores: {{counters: '{url}'}}\n" for url in ("acme:here", "acme:")]
    good, wrong = extproc("extproc.stores", STORE, *((yaml, "check") for yaml in yamls))
    assert "is for tests (warning)" in good.stdout, good.stderr
    assert "acme:here is the only one" in wrong.stderr


def test_a_strategy_is_found(extproc):
    yaml = PLAIN + "virtual_models: {v: {strategy: acme, targets: [{model: m}]}}\n"
    [done] = extproc("extproc.routing.strategies", STRATEGY, (yaml, "check"))
    assert done.stdout.endswith("gateway.yaml: ok\n"), done.stderr


def test_shared_modules_are_not_plug_ins(tmp_path):
    (tmp_path / "_shared.py").write_text(SHARED)
    (tmp_path / "_folder").mkdir()
    (tmp_path / "_folder" / "__init__.py").write_text(SHARED)
    code = f"""
        from extproc import dialects, guardrails, stores
        from extproc.routing import strategies
        from extproc.upstream import providers
        for room in (dialects, guardrails, stores, strategies, providers):
            room.__path__.append({str(tmp_path)!r})
        stores.check_counters("memory:")
        found = [*providers.kinds(), *guardrails.kinds(), *dialects.families(), *strategies.strategies()]
        assert found and not [name for name in found if name[0] == "_"]
        for url in ("_shared:", "__init__:", "_shared:x"):
            try:
                stores.check_counters(url)
            except ValueError as error:
                assert "counters must be one of memory:, redis:, sqlite:" in str(error), error
            else:
                raise AssertionError(url)
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
