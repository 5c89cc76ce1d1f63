"""A plug-in is one file: it is found by its place, its settings are checked and documented, and no other file names it.

Modules whose names begin with an underscore are shared code. Each test adds a folder to the room, as if its files
belonged to the room, in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

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


@pytest.fixture
def extproc(tmp_path):
    """`extproc(room, source, *arguments)`: the command line with a plug-in `acme` in that room."""
    file = tmp_path / "gateway.yaml"

    def run(room: str, source: str, *arguments: str, yaml: str = "") -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "room"
        folder.mkdir(exist_ok=True)
        (folder / "acme.py").write_text(textwrap.dedent(source))
        (folder / "_shared.py").write_text(SHARED)
        file.write_text(yaml)
        code = f"import sys, {room}; {room}.__path__.append({str(folder)!r}); "
        code += "sys.argv = ['extproc', *sys.argv[1:]]; from extproc.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)

    return run


PLAIN = "providers: {a: {kind: mock}}\nmodels: {m: {provider: a}}\nauth: {required: false}\n"


def test_a_provider_is_found(extproc):
    yaml = "providers: {a: {kind: acme}}\nmodels: {m: {provider: a}}\nauth: {required: false}\n"
    done = extproc("extproc.upstream.providers", PROVIDER, "check", yaml=yaml)
    assert done.stdout.endswith("gateway.yaml: ok\n"), done.stderr
    done = extproc("extproc.upstream.providers", PROVIDER, "schema", "--providers", "pages")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_guardrail_is_found_beside_another(extproc):
    both = PLAIN + "guardrails: [{name: r, kind: regex, patterns: {a: b}}, {name: g, kind: acme, acme: [Hello]}]"
    arguments = ("check", "--explain", "--model", "m")
    done = extproc("extproc.guardrails", GUARDRAIL, *arguments, yaml=both)
    assert "g (acme, input, block): finds something in 'messages[0].content' and blocks it" in done.stdout, done.stderr


def test_an_error_of_one_guardrail_among_several_has_its_place(extproc):
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
    done = extproc("extproc.guardrails", GUARDRAIL, "check", yaml=yaml)
    assert done.returncode == 1
    for _, expected in wrong:
        assert f":{expected}" in done.stderr


def test_the_reference_describes_each_guardrail(extproc):
    page = extproc("extproc.guardrails", GUARDRAIL, "schema", "--markdown").stdout
    section = page.partition("\n## guardrails\n")[2].partition("\n## ")[0]
    assert "| `acme` | list of string | required | Words that stay here |" in section
    assert "| `patterns` | mapping | required |" in section


def test_a_counter_store_is_found(extproc):
    done = extproc("extproc.stores", STORE, "check", yaml=PLAIN + "stores: {counters: 'acme:here'}\n")
    assert "is for tests (warning)" in done.stdout, done.stderr
    done = extproc("extproc.stores", STORE, "check", yaml=PLAIN + "stores: {counters: 'acme:'}\n")
    assert "acme:here is the only one" in done.stderr


def test_a_strategy_is_found(extproc):
    yaml = PLAIN + "virtual_models: {v: {strategy: acme, targets: [{model: m}]}}\n"
    done = extproc("extproc.routing.strategies", STRATEGY, "check", yaml=yaml)
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
