"""The manifests: valid, hardened and consistent; their commands start a gateway that answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import httpx
import kubernetes_validate
import pytest
import yaml

from extproc.__main__ import main
from extproc.access.auth import hash_key
from extproc.settings import config
from extproc.wire.transport import workers
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer

ROOT = Path(__file__).parent.parent
K8S = ROOT / "k8s"
BASE, MOCK, FLEET = K8S / "base", K8S / "overlays" / "mock", K8S / "overlays" / "fleet"
SCHEMA = kubernetes_validate.latest_version()
BIN = Path(sys.executable).parent
LEVELS = {"": 1.0, "m": 0.001, "Mi": 2.0**20, "Gi": 2.0**30}
# The lists that a patch merges entry by entry, and the key of an entry.
KNOWN_BY = {
    **dict.fromkeys(("initContainers", "containers", "volumes"), "name"),
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "topologySpreadConstraints": "topologyKey",
}
SECRETS = re.compile(r"(?:file: ?|=)/run/secrets/extproc/([a-z-]+)")


def documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document]


def kustomization(folder: Path) -> dict[str, Any]:
    return documents(folder / "kustomization.yaml")[0]


def plain(folder: Path) -> list[dict[str, Any]]:
    """The resources of a kustomization: its files, those of its bases, and its patches."""
    found: list[dict[str, Any]] = []
    for name in kustomization(folder)["resources"]:
        found += plain(folder / name) if (folder / name).is_dir() else documents(folder / name)
    for patch in kustomization(folder).get("patches", []):
        for change in documents(folder / patch["path"]):
            [at] = [
                index
                for index, document in enumerate(found)
                if document["kind"] == change["kind"] and name_of(document) == name_of(change)
            ]
            found[at : at + 1] = [] if change.get("$patch") == "delete" else [merged(found[at], change)]
    return found


def merged(old: Any, new: Any, field: str = "") -> Any:
    """A strategic merge, as far as the overlays need one. Entries of a patch come first, in the patch's order."""
    if isinstance(old, dict):
        changed = {key: merged(old[key], value, key) if key in old else value for key, value in new.items()}
        return {**old, **changed}
    if isinstance(old, list):
        key = KNOWN_BY[field]
        known, named = {entry[key]: entry for entry in old}, {entry[key] for entry in new}
        first = [merged(known.get(entry[key], {}), entry) for entry in new if entry.get("$patch") != "delete"]
        return [*first, *(entry for entry in old if entry[key] not in named)]
    return new


def name_of(document: Mapping[str, Any]) -> str:
    return str(document["metadata"]["name"])


def only(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (document,) = [document for document in found if document["kind"] == kind]
    return document


def pod(folder: Path = BASE) -> dict[str, Any]:
    spec: dict[str, Any] = only(plain(folder), "Deployment")["spec"]["template"]["spec"]
    return spec


def containers(folder: Path = MOCK) -> dict[str, dict[str, Any]]:
    spec = pod(folder)
    return {entry["name"]: entry for entry in [*spec["initContainers"], *spec["containers"]]}


def lasting(entry: Mapping[str, Any]) -> bool:
    """True for containers that run as long as the pod: all except an init container that ends."""
    return entry["name"] == "drain" or entry.get("restartPolicy") == "Always"


def amount(text: str) -> float:
    number = text.rstrip("mMGi")
    return float(number) * LEVELS[text.removeprefix(number)]


every_container = pytest.mark.parametrize("name", sorted(containers()))
both = pytest.mark.parametrize("folder", [BASE, MOCK], ids=lambda folder: folder.name)
each = pytest.mark.parametrize("folder", [BASE, MOCK, FLEET], ids=lambda folder: folder.name)


@each
def test_every_file_is_listed_and_every_listed_file_is_there(folder: Path) -> None:
    tree = kustomization(folder)
    listed = {name for name in tree["resources"] if not (folder / name).is_dir()}
    listed |= {patch["path"] for patch in tree.get("patches", [])}
    listed |= {file for entry in tree.get("configMapGenerator", []) for file in entry["files"]}
    assert listed == {path.name for path in folder.iterdir()} - {"kustomization.yaml"}


@each
def test_every_manifest_is_valid(folder: Path) -> None:
    for document in plain(folder):
        kubernetes_validate.validate(document, SCHEMA, strict=True)


@each
@pytest.mark.skipif(not any(map(shutil.which, ("kustomize", "kubectl"))), reason="needs kustomize or kubectl")
def test_kustomize_builds_the_resources_that_these_tests_read(folder: Path, tmp_path: Path) -> None:
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": os.devnull}
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True, env=env)
    built = list(yaml.safe_load_all(done.stdout))
    for document in built:
        kubernetes_validate.validate(document, SCHEMA, strict=True)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "extproc"
    assert only(built, "Deployment")["spec"] == only(plain(folder), "Deployment")["spec"]
    assert only(built, "ConfigMap")["metadata"]["name"] == "extproc-settings"


def test_the_namespace_enforces_the_restricted_standard() -> None:
    namespace = only(plain(BASE), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert kustomization(BASE)["namespace"] == kustomization(MOCK)["namespace"] == name_of(namespace)


@each
def test_the_pod_has_no_access_to_the_cluster_or_the_node(folder: Path) -> None:
    spec = pod(folder)
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}


@every_container
def test_containers_are_restricted(name: str) -> None:
    entry = containers()[name]
    assert entry["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for what in ("cpu", "memory"):
        assert 0 < amount(entry["resources"]["requests"][what]) <= amount(entry["resources"]["limits"][what])
    image, _, tag = entry["image"].rpartition(":")
    assert image, "an image without a tag is the latest"
    assert tag != "latest"
    assert not any("hostPort" in port for port in entry.get("ports", []))
    taken = [variable["valueFrom"] for variable in entry.get("env", [])]
    assert all(set(source) == {"resourceFieldRef"} for source in taken), "secrets are files"
    assert "envFrom" not in entry


def test_containers_that_share_the_socket_have_one_uid() -> None:
    """The socket's mode is 0600, so another uid could not connect."""
    sharing = [
        entry for entry in containers().values() if "run" in {mount["name"] for mount in entry.get("volumeMounts", ())}
    ]
    assert {entry["name"] for entry in sharing} == {"render", "processor", "envoy"}
    ids = {(entry["securityContext"]["runAsUser"], entry["securityContext"]["runAsGroup"]) for entry in sharing}
    spec = pod()["securityContext"]
    assert ids == {(spec["runAsUser"], spec["runAsGroup"])} == {(65532, spec["fsGroup"])}


def test_envoy_sees_neither_the_secret_nor_the_settings() -> None:
    mounts = containers()["envoy"]["volumeMounts"]
    assert [mount["name"] for mount in mounts] == ["run", "admin"]


def test_envoys_admin_interface_is_a_socket_that_the_drain_alone_shares() -> None:
    sharing = {name for name, entry in containers().items() if "admin" in str(entry.get("volumeMounts", ()))}
    assert sharing == {"envoy", "drain"}
    [path] = [part.partition("=")[2] for part in containers()["render"]["args"] if "--admin-socket" in part]
    assert f"--admin={path}" in containers()["drain"]["args"]
    mark = PurePath(workers.drain_mark(workers.SOCKET))
    mounts = {
        name: {each["name"]: each["mountPath"] for each in containers()[name]["volumeMounts"]}
        for name in ("processor", "drain")
    }
    assert mounts["processor"]["drain"] == str(mark.parent)
    assert f"--mark={mounts['drain']['drain']}/{mark.name}" in containers()["drain"]["args"]
    assert "run" not in mounts["drain"], "it sees no key"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert containers()["drain"][probe]["exec"]["command"] == ["test", "-S", path]


def test_keys_are_never_on_a_disk() -> None:
    (run,) = [volume for volume in pod()["volumes"] if volume["name"] == "run"]
    assert run["emptyDir"]["medium"] == "Memory"


@every_container
def test_long_running_containers_have_probes(name: str) -> None:
    entry = containers()[name]
    probes = {"startupProbe", "readinessProbe", "livenessProbe"} & set(entry)
    assert probes == ({"startupProbe", "readinessProbe", "livenessProbe"} if lasting(entry) else set())
    ports = {port["name"]: port["containerPort"] for port in entry.get("ports", [])}
    for probe in probes:
        for how in ("httpGet", "tcpSocket"):
            assert how not in entry[probe] or entry[probe][how]["port"] in ports


@pytest.mark.parametrize("folder", [BASE, FLEET], ids=lambda folder: folder.name)
def test_envoy_starts_after_the_processor_and_stops_before_it(folder: Path) -> None:
    spec = pod(folder)
    assert [entry["name"] for entry in spec["initContainers"]] == ["render", "processor", "envoy"]
    assert [entry["name"] for entry in spec["containers"]] == ["drain"]
    assert containers()["processor"]["restartPolicy"] == containers()["envoy"]["restartPolicy"] == "Always"


def test_the_grace_period_is_long_enough_for_both_to_drain() -> None:
    drain = dict(part.split("=") for part in containers()["drain"]["args"][2:])
    serve = dict(part.split("=") for part in containers()["processor"]["args"][1:])
    seconds = [drain["--notice"], drain["--grace"], serve["--drain-notice"], serve["--drain-grace"], "10"]
    assert sum(map(float, seconds)) <= pod()["terminationGracePeriodSeconds"]
    assert "--drain-strategy" in containers()["envoy"]["args"]


def test_a_volume_of_one_node_is_not_used_by_a_rolling_update() -> None:
    spec = only(plain(BASE), "Deployment")["spec"]
    assert only(plain(BASE), "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


@each
def test_references_between_the_manifests_resolve(folder: Path) -> None:
    found, spec = plain(folder), pod(folder)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounted = {mount["name"] for entry in containers(folder).values() for mount in entry.get("volumeMounts", ())}
    assert mounted == set(volumes)
    (generated,) = kustomization(folder)["configMapGenerator"]
    assert volumes["settings"]["configMap"] == {"name": generated["name"]}
    assert generated["files"] == ["gateway.yaml"]
    claims = [name_of(document) for document in found if document["kind"] == "PersistentVolumeClaim"]
    assert [
        claim["claimName"] for volume in volumes.values() if (claim := volume.get("persistentVolumeClaim"))
    ] == claims

    labels = only(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    # Numbers: before Kubernetes 1.33 a Service does not find the name of a port in a sidecar container.
    ports = {port["containerPort"] for entry in containers(folder).values() for port in entry.get("ports", ())}
    for service in (document for document in found if document["kind"] == "Service"):
        assert service["spec"]["selector"].items() <= labels.items()
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for document in found:
        if document["kind"] == "NetworkPolicy":
            assert document["spec"]["podSelector"]["matchLabels"].items() <= labels.items()

    mounts = {mount["mountPath"] for entry in containers(folder).values() for mount in entry.get("volumeMounts", ())}
    for entry in containers(folder).values():
        for part in entry["args"]:
            path = part.partition("=")[2] if part.startswith("--") else part
            assert not path.startswith("/") or any(path.startswith(mount + "/") for mount in mounts), part


def test_the_network_policy_opens_two_ports_and_no_other() -> None:
    policy = only(plain(BASE), "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    doors = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    ports = {
        port["name"]: port["containerPort"] for entry in containers(BASE).values() for port in entry.get("ports", ())
    }
    assert set(doors) == set(ports.values())
    assert doors[ports["status"]][0]["namespaceSelector"]["matchLabels"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443}


@both
def test_the_settings_are_valid_and_fit_the_manifests(folder: Path) -> None:
    settings = config.load(folder / "gateway.yaml")
    ports = {
        port["name"]: port["containerPort"] for entry in containers(BASE).values() for port in entry.get("ports", ())
    }
    assert ports == {"public": settings.listener.port, "status": settings.status.port}
    mounts = {mount["name"]: mount["mountPath"] for mount in containers()["processor"]["volumeMounts"]}
    assert settings.processor.path.startswith(mounts["run"] + "/")
    for store in (settings.stores.counters, settings.stores.ledger):  # the root file system cannot be written
        assert store.startswith(f"sqlite:{mounts['data']}/")
    assert settings.admin.address == "127.0.0.1", "without a token, which the base has none of"
    secrets = [provider.api_key for provider in settings.providers.values() if provider.api_key]
    secrets += [key.secret for consumer in settings.consumers for key in consumer.keys if key.secret]
    assert secrets
    assert all(secret.scheme == "file" and Path(secret.where).parent == Path(mounts["keys"]) for secret in secrets)


def test_the_mock_overlay_has_every_key_that_its_settings_name() -> None:
    (generated,) = kustomization(MOCK)["secretGenerator"]
    (volume,) = [volume for volume in pod(MOCK)["volumes"] if volume["name"] == "keys"]
    assert generated["name"] == volume["secret"]["secretName"]
    given = {literal.partition("=")[0] for literal in generated["literals"]}
    settings = config.load(MOCK / "gateway.yaml")
    assert given == {Path(key.file or "").name for consumer in settings.consumers for key in consumer.keys}


def test_the_documentation_names_every_key_of_the_secret() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    for folder, line in zip((BASE, FLEET), text.split("create secret generic extproc-keys")[1:], strict=True):
        command = line.partition("\n\n")[0]
        assert set(re.findall(r"--from-file=([a-z-]+)=", command)) == secrets(folder)


def secrets(folder: Path) -> set[str]:
    """The files of the Secret that the settings name."""
    return set(SECRETS.findall((folder / "gateway.yaml").read_text(encoding="utf-8")))


# --- A fleet


def test_a_fleet_stores_nothing_in_a_pod() -> None:
    found = plain(FLEET)
    assert not [document for document in found if document["kind"] == "PersistentVolumeClaim"]
    assert {volume["name"] for volume in pod(FLEET)["volumes"]} == {"settings", "keys", "run", "admin", "drain"}
    text = (FLEET / "gateway.yaml").read_text(encoding="utf-8")
    stores = yaml.safe_load(text)["stores"]
    assert stores["counters"].startswith("rediss://")
    assert stores["ledger"].startswith("postgresql://")
    assert "sslmode=verify-full" in stores["ledger"]


def test_a_fleet_is_updated_and_drained_one_pod_at_a_time() -> None:
    found = plain(FLEET)
    spec = only(found, "Deployment")["spec"]
    assert spec["replicas"] > 1
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    budget = only(found, "PodDisruptionBudget")["spec"]
    assert budget["selector"] == spec["selector"]
    assert budget["maxUnavailable"] == 1


def test_a_fleet_opens_the_admin_api_to_labelled_namespaces_with_a_token() -> None:
    admin = yaml.safe_load((FLEET / "gateway.yaml").read_text(encoding="utf-8"))["admin"]
    ports = {port["name"]: port["containerPort"] for port in containers(FLEET)["processor"]["ports"]}
    assert ports["admin"] == admin["port"]
    assert admin["token"].startswith("file:")
    (policy,) = [document["spec"] for document in plain(FLEET) if name_of(document) == "extproc-fleet"]
    (door,) = policy["ingress"]
    assert [port["port"] for port in door["ports"]] == [admin["port"]]
    assert all(peer["namespaceSelector"]["matchLabels"] for peer in door["from"])
    (out,) = policy["egress"]
    assert all(peer["namespaceSelector"]["matchLabels"] for peer in out["to"])
    stores = yaml.safe_load((FLEET / "gateway.yaml").read_text(encoding="utf-8"))["stores"]
    assert {port["port"] for port in out["ports"]} == {urlsplit(stores["counters"]).port, 5432}


def test_the_image_has_the_extras_that_a_fleet_needs() -> None:
    text = (ROOT / "k8s/Dockerfile").read_text(encoding="utf-8")
    extras = re.findall(r"^ARG EXTRAS=([a-z,]+)", text, re.MULTILINE)[0].split(",")
    assert {"redis", "postgres", "envoy"} <= set(extras)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(extras) <= set(known)


def test_the_image_copies_files_of_the_build_context_and_runs_as_the_pods_user() -> None:
    lines = (ROOT / "k8s/Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {
        part for line in lines if line.startswith("COPY ") and "--from" not in line for part in line.split()[1:-1]
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    user = pod()["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in lines
    assert 'ENTRYPOINT ["extproc"]' in lines


# --- The commands of the manifests, on this machine


class Pod:
    """A pod without Kubernetes: mount paths become folders, ports become free ones, containers become processes."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self.folder = folder
        self.listener, self.status, self.admin, self.mock = ports
        self.url = f"http://127.0.0.1:{self.listener}"
        self.http = httpx.Client(timeout=30, trust_env=False, verify=False)
        every = [mount for entry in containers().values() for mount in entry.get("volumeMounts", ())]
        self._mounts = {mount["mountPath"]: str(folder / mount["name"]) for mount in every}
        for path in self._mounts.values():
            Path(path).mkdir(exist_ok=True)
        (folder / "run/drain").symlink_to(folder / "drain")  # a mount inside of another

    def here(self, text: str) -> str:
        for mount, path in self._mounts.items():
            text = text.replace(mount + "/", path + "/")
        return text

    def settings(self, source: Path, **more: Any) -> None:
        """The settings of `source`, with this machine's addresses and the sections of `more`."""
        tree = yaml.safe_load(self.here(source.read_text(encoding="utf-8")))
        for door, port in (("listener", self.listener), ("status", self.status), ("admin", self.admin)):
            tree[door] = {**tree.get(door, {}), "address": "127.0.0.1", "port": port}
        tree["processor"] = {"socket": self.here("/run/extproc/extproc.sock")}
        for provider in tree["providers"].values():
            provider["base_url"] = f"http://127.0.0.1:{self.mock}/v1"
        tree |= more
        (self.folder / "settings/gateway.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")

    def secret(self, name: str, value: str) -> None:
        (self.folder / "keys" / name).write_text(value, encoding="utf-8")

    def command(self, name: str) -> list[str]:
        binary = "envoy" if name == "envoy" else "extproc"
        parts = [self.here(part) for part in containers()[name]["args"]]
        return [str(BIN / binary), *(f"--port={self.mock}" if part.startswith("--port=") else part for part in parts)]

    def run(self, name: str) -> None:
        """Run a container of one verb that ends by itself, as a call."""
        with mock.patch("sys.argv", self.command(name)):
            assert main() == 0

    def start(self, name: str, running: ExitStack, *more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*self.command(name), *more], cwd=self.folder)
        running.callback(_end, process)
        return process

    def chat(self, model: str, key: str = "try-me") -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {key}"}
        return self.http.post(self.url + "/v1/chat/completions", json=body, headers=headers)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def eventually(find: Callable[[], Any], timeout: float = 30) -> Any:
    deadline = time.monotonic() + timeout
    while True:
        try:
            if found := find():
                return found
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    import socket

    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


@pytest.fixture
def here() -> Iterator[Pod]:
    with tempfile.TemporaryDirectory(prefix="pod-") as folder:  # short: a socket's path is at most 100 bytes
        pod = Pod(Path(folder), free_ports(4))
        with pod.http:
            yield pod


def start(pod: Pod, running: ExitStack, *mock: str) -> subprocess.Popen[bytes]:
    """Start the containers as the kubelet does: each when the previous one is ready. Returns Envoy."""
    pod.run("render")
    pod.start("mock", running, *mock)
    eventually(lambda: pod.http.get(f"http://127.0.0.1:{pod.mock}/healthz").is_success)
    processor = pod.start("processor", running)
    probe = containers()["processor"]["readinessProbe"]["httpGet"]["path"]
    eventually(lambda: processor.poll() is None and pod.http.get(f"http://127.0.0.1:{pod.status}{probe}").is_success)
    envoy = pod.start("envoy", running)
    eventually(lambda: pod.http.get(pod.url + "/").status_code == 404)
    return envoy


@pytest.mark.e2e
def test_envoy_accepts_the_configuration_of_the_init_container(here: Pod) -> None:
    shutil.copy(BASE / "gateway.yaml", here.folder / "settings/gateway.yaml")
    here.run("render")
    rendered = here.folder / "run/envoy.yaml"
    # The settings as in the cluster. Only files that must exist for Envoy are this machine's.
    rendered.write_text(rendered.read_text(encoding="utf-8").replace("/run/extproc/", f"{here.folder}/run/"))
    command = [str(BIN / "envoy"), "--mode", "validate", "--use-dynamic-base-id", "--log-level", "error"]
    done = subprocess.run([*command, "-c", str(rendered)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
@both
def test_the_commands_of_the_manifests_answer_a_request(here: Pod, folder: Path) -> None:
    here.settings(folder / "gateway.yaml")
    here.secret("demo-key", "try-me\n")
    here.secret("openai-api-key", "of-the-provider\n")
    with ExitStack() as running:
        start(here, running, *(["--api-key", "of-the-provider"] if folder == BASE else []))
        answer = here.chat("gpt-6-luna" if folder == BASE else "assistant")
        assert answer.status_code == 200, answer.text
        assert "Hello" in answer.json()["choices"][0]["message"]["content"]
        assert here.chat("gpt-6-luna", key="another").status_code == 401
        assert {"counters.db", "ledger.db"} <= {path.name for path in (here.folder / "data").iterdir()}
        assert (here.folder / "run/extproc.sock").stat().st_mode & 0o777 == 0o600
        assert (here.folder / "run/secrets").stat().st_mode & 0o777 == 0o700


@pytest.mark.e2e
def test_a_pod_that_stops_ends_its_streams_first(here: Pod) -> None:
    here.secret("demo-key", "try-me")
    body = {"model": "stub+words=30+pace=50ms", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    with ExitStack() as running:
        here.settings(MOCK / "gateway.yaml", models={"*": {"provider": "sandbox"}}, virtual_models={})
        envoy = start(here, running)
        drain = here.start("drain", running, "--notice=0.5")
        eventually(lambda: b"\0-S\0" in Path(f"/proc/{drain.pid}/cmdline").read_bytes())  # it waits for its signal
        headers = {"authorization": "Bearer try-me"}
        url = here.url + "/v1/chat/completions"
        with here.http.stream("POST", url, json=body, headers=headers) as answer:
            pieces = answer.iter_bytes()
            first = next(pieces)
            drain.terminate()
            ready = f"http://127.0.0.1:{here.status}/readyz"
            eventually(lambda: here.http.get(ready).text == "draining\n")
            assert here.chat("stub").status_code == 200, "until it has left the load balancer"
            whole = first + b"".join(pieces)
        assert whole.endswith(b"data: [DONE]\n\n")
        assert (drain.wait(10), envoy.poll()) == (0, None)


@pytest.mark.e2e
def test_a_changed_secret_rotates_a_key(here: Pod) -> None:
    here.settings(BASE / "gateway.yaml")
    here.secret("demo-key", "try-me")
    here.secret("openai-api-key", "old")
    with ExitStack() as running:
        start(here, running, "--api-key", "new")
        assert here.chat("gpt-6-luna").status_code == 502
        here.secret("openai-api-key", "new")
        eventually(lambda: here.chat("gpt-6-luna").status_code == 200)


@pytest.mark.e2e
def test_a_pod_of_a_fleet_counts_in_redis_and_writes_to_postgresql(here: Pod, tmp_path: Path) -> None:
    RedisServer.need()
    PostgresServer.need()
    with ExitStack() as running:
        counters, ledger = RedisServer(tmp_path, "--requirepass", "of-redis"), PostgresServer()
        for server in (counters, ledger):
            running.callback(server.stop)
            server.start()
        folder = here.folder / "keys"
        values = {"openai-api-key": "of-the-provider", "key-secret": "s" * 32, "admin-token": "of-admin"}
        for name in secrets(FLEET):
            here.secret(name, values.get(name, "of-" + name.removesuffix("-password")))
        stores = {
            "counters": f"{counters.url}?password=file:{folder}/redis-password",
            "ledger": f"{ledger.url()}?password=file:{folder}/postgres-password",
        }
        consumer = {"name": "ci-bot", "team": "platform", "keys": [{"hash": hash_key("try-me", "s" * 32)}]}
        here.settings(FLEET / "gateway.yaml", stores=stores, consumers=[consumer])
        start(here, running, "--api-key", "of-the-provider")
        eventually(lambda: time.time() % 60 < 40)  # so that no minute of the budget ends in the middle
        assert here.chat("gpt-6-luna").status_code == 200
        admin = f"http://127.0.0.1:{here.admin}"
        assert here.http.get(admin + "/usage").status_code == 401
        token = {"authorization": "Bearer of-admin"}
        eventually(lambda: here.http.get(admin + "/usage", headers=token).json()["total"]["requests"] == 1)
        (budget,) = here.http.get(admin + "/budgets/requests-per-minute", headers=token).json()["data"]
        assert [scope["fields"] for scope in budget["scopes"]] == [{"consumer": "ci-bot"}]
        assert ledger.sql("SELECT consumer FROM exchanges").split() == ["ci-bot"]
        assert not list((here.folder / "data").iterdir())
