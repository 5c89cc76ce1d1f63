"""A pod of the chart, run container by container as a kubelet runs it, with podman and a network of its own.

It does what the chart depends on: init containers in their order, sidecars before the main containers, probes, volumes
of ConfigMaps and Secrets with their links, `fsGroup`, limits, read-only roots, restarts with a back-off, the order of a
termination. Source: https://kubernetes.io/docs/concepts/workloads/pods/ (pod lifecycle, sidecar containers).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_CONF = Path(__file__).with_name("containers.conf")
_ENVIRONMENT = os.environ | {"CONTAINERS_CONF": str(_CONF), "STORAGE_DRIVER": "overlay"}
_BACK_OFF = 10.0  # seconds before the second restart of a container; it doubles from there
_MANY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def run(*command: str, check: bool = True) -> str:
    """The output of a command. Raises AssertionError with its errors."""
    done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout


class Network:
    """A network namespace with an address that this machine reaches: the pod's `podIP`."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.path = name, f"/run/netns/{name}"
        here, self.address = f"169.254.{number}.1", f"169.254.{number}.2"
        self._link = f"v{name}"[:15]
        self.close()
        run("ip", "netns", "add", name)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "address", "add", f"{here}/30", "dev", self._link)
        run("ip", "link", "set", self._link, "up")
        run("ip", "-n", name, "address", "add", f"{self.address}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", device, "up")
        run("ip", "-n", name, "route", "add", "default", "via", here)

    def close(self) -> None:
        """Remove it, where there is one."""
        run("ip", "netns", "delete", self.name, check=False)


class Volumes:
    """The directories of a pod's volumes."""

    def __init__(self, base: Path, pod: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> None:
        self._base = base
        self._group = pod["securityContext"]["fsGroup"]
        self._of = {volume["name"]: volume for volume in pod["volumes"]}
        self._mounted: list[Path] = []
        for name, volume in self._of.items():
            self._make(name, volume, objects)

    def path(self, name: str) -> Path:
        """The directory of a volume."""
        return self._base / name

    def _make(self, name: str, volume: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> None:
        path = self.path(name)
        path.mkdir(parents=True)
        if "emptyDir" in volume:
            size = volume["emptyDir"].get("sizeLimit", "64Mi")
            run("mount", "-t", "tmpfs", "-o", f"size={_bytes(size)}", "tmpfs", str(path))
            self._mounted.append(path)
        if "configMap" in volume or "secret" in volume:
            self.write(name, data_of(volume, objects))
            return
        os.chown(path, 0, self._group)
        path.chmod(0o2777 if "emptyDir" in volume else 0o2775)

    def write(self, name: str, data: Mapping[str, str]) -> None:
        """The files of a ConfigMap or Secret, replaced at once as the kubelet does: a new `..data` is renamed."""
        path, volume = self.path(name), self._of[name]
        mode = (volume.get("configMap") or volume["secret"]).get("defaultMode", 0o644)
        version = path / f"..{time.time_ns()}"
        version.mkdir(mode=0o755)
        for file, text in data.items():
            (version / file).write_text(text)
            os.chown(version / file, 0, self._group)
            (version / file).chmod(mode)
            if not (path / file).is_symlink():
                (path / file).symlink_to(f"..data/{file}")
        before = (path / "..data").resolve() if (path / "..data").exists() else None
        link = path / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(path / "..data")
        if before is not None:
            shutil.rmtree(before)

    def close(self) -> None:
        """Unmount what is mounted."""
        for path in self._mounted:
            run("umount", "-l", str(path), check=False)


def data_of(volume: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """The files of a volume from a ConfigMap or Secret of the rendered chart."""
    kind, name = (
        ("ConfigMap", volume["configMap"]["name"])
        if "configMap" in volume
        else ("Secret", volume["secret"]["secretName"])
    )
    found = next(each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)
    return {**found.get("data", {}), **found.get("stringData", {})}


class Pod:
    """A pod made of the template of the rendered chart's Deployment. `images`: image of the chart -> image to run.
    `hosts`: name of a Service -> its address.
    """

    def __init__(
        self,
        name: str,
        number: int,
        objects: Sequence[Mapping[str, Any]],
        images: Mapping[str, str],
        base: Path,
        *,
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        deployment = next(each for each in objects if each["kind"] == "Deployment")
        self.spec = deployment["spec"]["template"]["spec"]
        self.name = name
        self.objects = objects
        self._images = images
        self._hosts = hosts or {}
        self.network = Network(name, number)
        self.volumes = Volumes(base, self.spec, objects)
        self._containers = {
            each["name"]: each for each in (*self.spec.get("initContainers", ()), *self.spec["containers"])
        }
        self.restarts = dict.fromkeys(self._containers, 0)
        self._again: dict[str, float] = {}  # container -> when it may start again
        self._running: list[str] = []
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    # --- life

    def start(self) -> None:
        """Start every container in its order, and come back when the pod is ready. Raises AssertionError."""
        for each in self.spec.get("initContainers", ()):
            if each.get("restartPolicy") == "Always":
                self._create(each)
                self._wait_started(each)
            else:
                run(*self._command(each, "run", "--rm"))
        for each in self.spec["containers"]:
            self._create(each)
        for each in self.spec["containers"]:
            self._wait_started(each)
        self._keeper.start()
        wait(self.is_ready, 30, f"{self.name} is not ready")

    def is_ready(self) -> bool:
        """True when every container's readiness probe succeeds."""
        return all(
            self.probe(each, "readinessProbe") for name, each in self._containers.items() if name in self._running
        )

    def terminate(self) -> float:
        """End the pod in the kubelet's order: the main containers, then the sidecars from the last to the first, all
        within the grace. Seconds that it took.
        """
        begun = time.monotonic()
        end = begun + self.spec["terminationGracePeriodSeconds"]
        self._end_keeping()
        main = [each["name"] for each in self.spec["containers"]]
        sidecars = [name for name in self._running if name not in main]
        self._signal(main, end)
        for name in reversed(sidecars):
            self._signal([name], end)
        return time.monotonic() - begun

    def close(self) -> None:
        """Remove everything."""
        self._end_keeping()
        for name in self._running:
            run("podman", "rm", "-f", "-t", "0", self._id(name), check=False)
        self.volumes.close()
        self.network.close()

    def _end_keeping(self) -> None:
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()

    def _signal(self, names: Sequence[str], end: float) -> None:
        for name in names:
            run("podman", "kill", "-s", "TERM", self._id(name), check=False)
        while (left := [name for name in names if self._state(name) == "running"]) and time.monotonic() < end:
            time.sleep(0.1)
        for name in left:
            run("podman", "kill", "-s", "KILL", self._id(name), check=False)

    def _keep(self) -> None:
        """Start containers again that ended, at once and then after a back-off that doubles."""
        while not self._stop.wait(0.2):
            for name in self._running:
                if self._state(name) == "running" or time.monotonic() < self._again.get(name, 0.0):
                    continue
                self._again[name] = time.monotonic() + _BACK_OFF * 2 ** self.restarts[name]
                self.restarts[name] += 1
                run("podman", "start", self._id(name))

    # --- containers

    def exec(self, container: str, *command: str, check: bool = True) -> str:
        """The output of a command in a container."""
        return run("podman", "exec", self._id(container), *command, check=check)

    def kill(self, container: str) -> None:
        """End a container as the kernel does when memory runs out."""
        run("podman", "kill", "-s", "KILL", self._id(container))

    def log(self, container: str) -> str:
        """The output of a container."""
        done = subprocess.run(
            ["podman", "logs", self._id(container)], env=_ENVIRONMENT, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def _id(self, name: str) -> str:
        return f"{self.name}-{name}"

    def _state(self, name: str) -> str:
        return run("podman", "inspect", "-f", "{{.State.Status}}", self._id(name)).strip()

    def _create(self, container: Mapping[str, Any]) -> None:
        self._running.append(container["name"])
        run(*self._command(container, "run", "--detach"))

    def _command(self, container: Mapping[str, Any], *how: str) -> Sequence[str]:
        security = container["securityContext"]
        limits = container["resources"]["limits"]
        command = ["podman", *how, "--pull=never", "--name", self._id(container["name"])]
        command += [f"--network=ns:{self.network.path}", f"--hostname={self.name}"]
        command += ["--user", f"{security['runAsUser']}:{security['runAsGroup']}"]
        command += ["--group-add", str(self.spec["securityContext"]["fsGroup"])]
        command += [f"--cap-drop={name}" for name in security["capabilities"]["drop"]]
        if not security["allowPrivilegeEscalation"]:
            command.append("--security-opt=no-new-privileges")
        if security["readOnlyRootFilesystem"]:
            command += ["--read-only", "--read-only-tmpfs=false"]
        command += [f"--memory={_bytes(limits['memory'])}", f"--cpus={_cores(limits['cpu'])}"]
        command += [f"--add-host={host}:{address}" for host, address in self._hosts.items()]
        for mount in container.get("volumeMounts", ()):
            mode = ":ro" if mount.get("readOnly") else ""
            command += ["-v", f"{self.volumes.path(mount['name'])}:{mount['mountPath']}{mode}"]
        for variable in container.get("env", ()):
            command += ["--env", f"{variable['name']}={self._value(variable)}"]
        if "command" in container:
            command.append(f"--entrypoint={json.dumps(container['command'])}")
        return [*command, self._images[container["image"]], *container.get("args", ())]

    def _value(self, variable: Mapping[str, Any]) -> str:
        if "value" in variable:
            return str(variable["value"])
        source = variable["valueFrom"]
        if "resourceFieldRef" in source:
            field = source["resourceFieldRef"]
            section, name = field["resource"].split(".")
            return str(math.ceil(_cores(self._containers[field["containerName"]]["resources"][section][name])))
        return {"metadata.name": self.name, "status.podIP": self.network.address}[source["fieldRef"]["fieldPath"]]

    # --- probes

    def _wait_started(self, container: Mapping[str, Any]) -> None:
        probe = container.get("startupProbe")
        if probe is None:
            return
        for _ in range(probe["failureThreshold"]):
            if self.probe(container, "startupProbe"):
                return
            time.sleep(probe.get("periodSeconds", 10))
        raise AssertionError(f"{container['name']} has not started: {self.log(container['name'])}")

    def probe(self, container: Mapping[str, Any], kind: str) -> bool:
        """True when the container's probe of that kind succeeds, or there is none."""
        probe = container.get(kind)
        if probe is None:
            return True
        limit = probe.get("timeoutSeconds", 1)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if "exec" in probe:
                command = ["podman", "exec", self._id(container["name"]), *probe["exec"]["command"]]
                return not subprocess.run(
                    command, env=_ENVIRONMENT, capture_output=True, timeout=limit, check=False
                ).returncode
            port = self._port(container, (probe.get("httpGet") or probe["tcpSocket"])["port"])
            if "tcpSocket" in probe:
                socket.create_connection((self.network.address, port), limit).close()
                return True
            url = f"http://{self.network.address}:{port}{probe['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=limit) as answer:
                return 200 <= answer.status < 400
        return False

    def probe_by_name(self, name: str, kind: str) -> bool:
        """See `probe`."""
        return self.probe(self._containers[name], kind)

    def _port(self, container: Mapping[str, Any], port: str | int) -> int:
        if isinstance(port, int):
            return port
        return next(each["containerPort"] for each in container["ports"] if each["name"] == port)


def wait(condition: Any, seconds: float, reason: str) -> float:
    """Seconds until a condition holds. Raises AssertionError with the reason when it does not in time."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, reason
        time.sleep(0.1)
    return time.monotonic() - begun


@contextlib.contextmanager
def running(pod: Pod) -> Iterator[float]:
    """A pod that has started; the seconds that took. It is removed at the end, with its logs where something failed."""
    begun = time.monotonic()
    try:
        pod.start()
        yield time.monotonic() - begun
    except BaseException:
        sys.stderr.writelines(f"--- {name}\n{pod.log(name)[-4000:]}\n" for name in pod.restarts)
        raise
    finally:
        pod.close()


def _bytes(text: str) -> int:
    return int(text[:-2]) * _MANY[text[-2:]]


def _cores(text: str | float) -> float:
    text = str(text)
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)
