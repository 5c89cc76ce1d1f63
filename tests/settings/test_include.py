"""Settings in several files: what a team's file may set, and where its problems stand."""

import os

import pytest

from extproc.settings import config, include
from extproc.settings.document import ConfigError

MAIN = """
providers: {sandbox: {kind: mock}}
models: {assistant: {provider: sandbox}}
teams: {search: {models: [assistant, search/*]}, ads: {}}
consumers: [{name: platform, keys: [{env: PLATFORM_KEY}]}]
budgets: [{name: all, unit: usd, limit: 100, window: month}]
include:
  - {files: [teams/search/*.yaml], team: search, may: [consumers, budgets, virtual_models]}
  - {files: [teams/ads.yaml], team: ads}
"""
SEARCH = """
consumers:
  - {name: crawler, keys: [{env: CRAWLER_KEY}]}
  - {name: ranker, team: search, keys: [{env: RANKER_KEY}]}
budgets:
  - {name: search-day, unit: usd, limit: 5, window: day}
virtual_models:
  search/best: {strategy: fallback, targets: [{model: assistant}]}
"""
ADS = "consumers: [{name: banner, keys: [{env: BANNER_KEY}]}]\n"


@pytest.fixture
def files(tmp_path):
    """Writes the files, by path from the folder of the main one, and returns that."""

    def write(**texts):
        for path, text in {"gateway": MAIN, "teams/search/a": SEARCH, "teams/ads": ADS, **texts}.items():
            file = tmp_path / f"{path}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                file.unlink(missing_ok=True)
            else:
                file.write_text(text)
        return tmp_path / "gateway.yaml"

    return write


def problems(file):
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


def test_the_files_of_teams_are_part_of_the_settings(files):
    settings = config.load(files())
    assert [(each.name, each.team) for each in settings.consumers] == [
        *(("platform", None), ("crawler", "search"), ("ranker", "search"), ("banner", "ads"))
    ]
    assert [(each.name, each.match) for each in settings.budgets] == [("all", {}), ("search-day", {"team": "search"})]
    assert [*settings.virtual_models] == ["search/best"]


def test_a_file_without_a_team_is_read_as_it_is(files):
    main = MAIN.replace("team: search, ", "")
    settings = config.load(files(gateway=main))
    assert [each.team for each in settings.consumers] == [None, None, "search", "ads"]
    assert settings.budgets[1].match == {}


@pytest.mark.parametrize(
    ("path", "text", "told"),
    [
        (
            "teams/ads",
            "models: {x: {provider: sandbox}}",
            "teams/ads.yaml:1:1: models: this file may set consumers, budgets",
        ),
        (
            "teams/ads",
            "consumers:\n  - {name: b, team: search}",
            "teams/ads.yaml:2:15: consumers.0.team: must be 'ads'",
        ),
        (
            *("teams/ads", "budgets:\n- {name: b, unit: usd, limit: 1, match: {team: search}}"),
            "teams/ads.yaml:2:42: budgets.0.match.team: must be 'ads'",
        ),
        (
            *("teams/ads", "budgets:\n- {name: b, unit: usd, limit: 1, alert_webhook: 'https://x.example'}"),
            "teams/ads.yaml:2:34: budgets.0.alert_webhook: a webhook",
        ),
        ("teams/ads", "consumers: [{name: platform}]", "teams/ads.yaml:1:14: consumers.0.name: "),
        ("teams/ads", "consumers: [{nam: x}]", "teams/ads.yaml:1:14: consumers.0.nam: "),
        ("teams/ads", "consumers: [", "teams/ads.yaml:2:1: file: not YAML"),
        ("teams/ads", "consumers: 3", "teams/ads.yaml:1:1: consumers: must be a list"),
        ("teams/ads", "consumers: []\n--- \nconsumers: []", "teams/ads.yaml:2:1: file: not YAML"),
        ("teams/ads", "consumers: []\0\0 \nx\nproviders: {}", "teams/ads.yaml"),
        ("teams/ads", None, "gateway.yaml:9:6: include.1.files: teams/ads.yaml: No such file or directory"),
        (
            *("teams/search/b", "virtual_models: {best: {strategy: fallback, targets: [{model: assistant}]}}"),
            "teams/search/b.yaml:1:18: virtual_models.best: names of this file begin with search/",
        ),
        (
            *("teams/search/b", "virtual_models: {search/best: {targets: []}}"),
            "teams/search/b.yaml:1:18: virtual_models.search/best: this name stands in another file, too",
        ),
        ("gateway", MAIN + "  - {files: [], team: ads}", "gateway.yaml:10:6: include.2.files: "),
        ("gateway", MAIN + "  - {files: [teams/ads.yaml], may: [providers]}", "gateway.yaml:10:"),
    ],
)
def test_what_a_file_may_not_is_told_with_its_place(files, path, text, told):
    assert any(line.startswith(told) for line in problems(files(**{path: text}))), problems(files(**{path: text}))


def test_the_problems_of_several_files_are_told_together(files):
    found = problems(files(**{"teams/ads": "consumers: 3", "teams/search/b": "consumers: 4"}))
    assert [line.split(":")[0] for line in found] == ["teams/search/b.yaml", "teams/ads.yaml"]


def test_contents_differ_when_a_file_changes_comes_or_goes(files):
    file = files()
    before = config.content(file)
    assert config.content(files(**{"teams/ads": ADS + "# changed"})) != before
    assert config.content(files(**{"teams/search/b": "{}"})) not in (
        before,
        config.content(files(**{"teams/search/b": None})),
    )
    assert config.content(files()) == before


def test_hidden_folders_of_a_configmap_are_left_out(files):
    file = files(gateway=MAIN.replace("teams/search/*.yaml", "teams/**/s*.yaml"), **{"teams/search/..data/s": SEARCH})
    files(**{"teams/search/s": SEARCH, "teams/search/a": None})
    assert len(config.load(file).consumers) == 4


def test_there_are_bounds(files, monkeypatch):
    monkeypatch.setattr(include, "MOST_FILES", 1)
    assert problems(files()) == ["gateway.yaml:7:1: include: more than 1 files"]
    monkeypatch.undo()
    assert "larger than" in problems(files(**{"teams/ads": ADS + "#" * config.MAX_FILE}))[0]


def test_what_is_no_path_is_an_error(files):
    file = files(gateway=MAIN.replace("[teams/ads.yaml]", '["teams\\0.yaml"]'))
    assert problems(file)[0].startswith("gateway.yaml:9:14: include.1.files.0: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_cannot_be_read_is_an_error(files):
    file = files()
    (file.parent / "teams/ads.yaml").chmod(0)
    assert "Permission denied" in problems(file)[0]
