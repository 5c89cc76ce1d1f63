"""The documentation is correct: its settings load, its links resolve, its reference matches the settings."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from extproc.__main__ import main
from extproc.dialects._models import facts
from extproc.guardrails import kinds
from extproc.settings import config
from extproc.settings.reference import markdown, provider_pages
from extproc.words.errors import ALL

ROOT = Path(__file__).parent.parent
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob(".github/*.md"),
    *ROOT.glob("docs/**/*.md"),
    *(ROOT / name / "README.md" for name in ("envoy", "k8s", "protos")),
]
BASE = {
    "providers": {"openai": {"kind": "openai", "api_key": "env:OPENAI_API_KEY"}},
    "models": {"gpt-6.1-sol": {"provider": "openai"}, "gpt-6-luna": {"provider": "openai"}},
    "consumers": [{"name": "demo", "keys": [{"env": "DEMO_KEY"}]}],
    "teams": {"platform": {}},
}


def snippets() -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{number}", text)
        for page in PAGES
        for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
    ]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in snippets()])
def test_every_yaml_of_the_docs_loads_alone_or_with_the_smallest_additions(text: str) -> None:
    fragment = yaml.safe_load(text)
    if "spec" in fragment or "apiVersion" in fragment or re.match("# values", text):
        pytest.skip("Kubernetes, not settings")
    given = {key: value for key, value in BASE.items() if key not in fragment}
    settings = config.parse((yaml.safe_dump(given) if given else "") + text)
    assert settings.models


def test_examples_name_models_that_live_a_year() -> None:
    renewed = date(2026, 11, 25)  # the day the examples were last renewed
    files = [ROOT / "gateway.yaml", *ROOT.glob("envoy/*.yaml"), *ROOT.glob("k8s/**/*.yaml")]
    ends = [end for end in facts().ending.models if end.retires < renewed + timedelta(days=365)]
    found = {
        (name, word)
        for name, text in [*snippets(), *((str(file.relative_to(ROOT)), file.read_text()) for file in files)]
        for word in set(re.findall(r"[\w.@-]*\w", text))
        if any(re.fullmatch(end.name, word) for end in ends)
    }
    assert not found


def test_the_page_of_each_guardrail_begins_with_an_audit() -> None:
    pages = {page.stem.replace("-", "_"): page.read_text() for page in (ROOT / "docs/guardrails").glob("*.md")}
    for kind in {*kinds()} - {"regex", "quarantine"}:  # on the page of all, and replaces results
        first = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", pages[kind], re.DOTALL | re.MULTILINE)[0])
        assert [entry["action"] for entry in first["guardrails"]] == ["audit"], kind


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_resolve(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)", page.read_text()):
        assert (page.parent / target).exists(), target
        assert not anchor or anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_targets_modules_and_verbs_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    code = "\n".join(_code(text))
    roots = [ROOT, ROOT / "extproc"] if page.name in {"architecture.md", "envoy.md"} else [ROOT]
    for name in re.findall(r"(?<![\w./~-])(?:[a-z_]+|\.[a-z]+)/[\w./-]+\.(?:py|lua|md|svg|jsonl)\b", code):
        placeholder = re.search(r"/[A-Z]+\b", name) or not any((root / name.split("/")[0]).exists() for root in roots)
        assert placeholder or any((root / name).exists() for root in roots), name
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|&& )make ([a-z][a-z0-9-]*)", code, re.MULTILINE)) <= set(targets)
    for name in re.findall(r"python -m ((?:bench|tests|extproc)[\w.]*)", code):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name
    verbs = {path.stem.rstrip("_") for path in (ROOT / "extproc/cli").glob("[a-z]*.py")}
    assert set(re.findall(r"(?:^|&& )extproc ([a-z]+)", code, re.MULTILINE)) <= verbs


def _code(text: str) -> list[str]:
    """The code of a page: words between backticks, and indented lines."""
    return [word or line for word, line in re.findall(r"`([^`\n]+)`|^ {4}(?! )(.*)", text, re.MULTILINE)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == markdown(), "run `make docs`"


def test_every_provider_has_its_page() -> None:
    pages = provider_pages()
    assert {name: (ROOT / "docs/providers" / name).read_text() for name in pages} == pages, "run `make docs`"
    written = {path.name for path in (ROOT / "docs/providers").glob("*.md")}
    assert written - {"credentials.md"} == set(pages)


def test_every_refusal_is_explained() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    assert {kind.code for kind in ALL} == {kind.code for kind in ALL if f"`{kind.code}`" in text}


def test_the_settings_of_make_run_are_valid() -> None:
    assert "assistant" in config.load(ROOT / "gateway.yaml").virtual_models


def test_the_readme_is_short_and_its_five_providers_pass_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    [settings] = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(config.parse(settings).providers) == 5
    (tmp_path / "gateway.yaml").write_text(settings)
    monkeypatch.setattr("sys.argv", ["extproc", "check", "--offline", "-c", str(tmp_path / "gateway.yaml")])
    assert main() == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.endswith("(warning)")]
    assert all("has a context of" in line for line in warnings), warnings
