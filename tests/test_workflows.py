"""The workflows of the repository: they parse, use pinned actions and few rights, and run what is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
FILES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / ".github/workflows").glob("*.yml")}
# YAML 1.1 reads the key `on` as true.
WORKFLOWS: dict[str, dict[Any, Any]] = {name: yaml.safe_load(text) for name, text in FILES.items()}


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{name}.{job}", body) for name, flow in WORKFLOWS.items() for job, body in flow["jobs"].items()]


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job.get("steps", ()))


def test_every_action_is_pinned_by_a_commit_with_its_version_beside_it() -> None:
    for text in FILES.values():
        used = re.findall(r"uses: (.*)", text)
        assert used
        for line in used:
            local = line.startswith("./") and (ROOT / line).exists()
            assert local or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    pins = {tuple(line.split("@")) for text in FILES.values() for line in re.findall(r"uses: ([\w./@-]+@\w+)", text)}
    assert len({name for name, _ in pins}) == len(pins), "one version of each action"


def test_workflows_have_few_rights() -> None:
    for name, flow in WORKFLOWS.items():
        assert flow["permissions"] == {"contents": "read"}, name
        assert "pull_request_target" not in flow[True], name
    for name, job in jobs():
        text = commands(job)
        assert "${{" not in text, f"{name}: an expression in a script can be code of somebody else"
        assert "steps" not in job or job["runs-on"] == "ubuntu-24.04"


def test_the_commands_of_the_workflows_name_what_is_there() -> None:
    text = "\n".join(commands(job) for _, job in jobs())
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make ([a-z]+)", text)) <= set(targets)
    assert all((ROOT / path).exists() for path in re.findall(r"helm package (\S+)", text))
    values = (ROOT / "k8s/chart/values.yaml").read_text()
    assert len(re.findall(r"^  repository: extproc$", values, re.MULTILINE)) == 1, "a release writes its image here"
    alerts = (ROOT / "k8s/monitoring/alerts.yaml").read_text()
    [place] = re.findall(r'sed -i "s#([^#]+)#[^#]+#" k8s/monitoring/alerts.yaml', text)
    assert alerts.count("runbook_url: ") == alerts.count(f"runbook_url: https://github.com/{place}/docs/") > 0


def test_every_file_names_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    files = (ROOT / "k8s").rglob("*.yaml")
    named = {tag for file in files for tag in re.findall(r"(?:extproc:|newTag: )(\d[\w.]*)", file.read_text())}
    chart = yaml.safe_load((ROOT / "k8s/chart/Chart.yaml").read_text())
    [label] = re.findall(r'image\.version="([^"]+)"', (ROOT / "k8s/Dockerfile").read_text())
    assert named | {label, chart["version"], chart["appVersion"]} == {version}
