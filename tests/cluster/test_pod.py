"""The chart's pod as a cluster runs it: `make cluster`. Every container is the image of `k8s/Dockerfile` or Envoy."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.client import IMAGES, KEY, Client, Load
from tests.cluster.kubelet import Pod, data_of, run, running, wait
from tests.test_chart import CHART, rendered

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """The pod of the chart's trial, ready."""
    one = Pod("extproc-a", 77, rendered("mock"), IMAGES, tmp_path_factory.mktemp("volumes"))
    with running(one) as seconds:
        assert seconds < 20
        yield one


def gateway_yaml(pod: Pod) -> dict[str, str]:
    """The files of the settings as the chart rendered them."""
    return dict(data_of(next(each for each in pod.spec["volumes"] if each["name"] == "settings"), pod.objects))


def test_a_pod_of_the_chart_answers(pod: Pod) -> None:
    client = Client(pod)
    with client.ask() as answer:
        assert json.load(answer)["choices"][0]["message"]["content"] == "You said: Hello"
    with client.ask(stream=True) as answer:
        assert answer.read().endswith(b"data: [DONE]\n\n")
    assert client.status(key="another") == 401


@pytest.mark.parametrize("container", ["processor", "mock", "drain"])
def test_a_container_has_no_rights_and_cannot_write_its_image(pod: Pod, container: str) -> None:
    assert pod.exec(container, "id", "-u").strip() == "65532"
    assert "Read-only" in pod.exec(container, "sh", "-c", "touch /opt/it 2>&1", check=False)
    status = pod.exec(container, "cat", "/proc/1/status")
    assert {line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapPrm"))} == {"0" * 16}
    assert "NoNewPrivs:\t1" in status


def test_secrets_and_sockets_are_for_the_pods_own_user(pod: Pod) -> None:
    assert pod.exec("processor", "stat", "-Lc", "%a %g", "/run/secrets/extproc/demo-key").split() == ["440", "65532"]
    assert pod.exec("processor", "sh", "-c", "stat -c %a /run/extproc/*.sock").split() == ["600"] * 2


def test_changed_settings_take_effect_without_a_failed_request(pod: Pod) -> None:
    client, files = Client(pod), gateway_yaml(pod)
    name = next(name for name, text in files.items() if "virtual_models" in text)
    settings = yaml.safe_load(files[name])
    settings["models"]["another"] = {"provider": "sandbox", "model": "stub"}
    assert client.status("another") == 404
    with Load(client.status) as load:
        pod.volumes.write("settings", files | {name: yaml.safe_dump(settings)})
        wait(lambda: client.status("another") == 200, 15, "the new model is not served")
        time.sleep(1)  # under load
        pod.volumes.write("settings", files)
        wait(lambda: client.status("another") == 404, 15, "the old settings are not back")
    assert load.failed == []
    assert load.asked > 10


def test_a_rotated_key_is_taken_and_the_one_before_refused(pod: Pod) -> None:
    client = Client(pod)
    pod.volumes.write("keys", {"demo-key": "rotated"})
    wait(lambda: always(client, "rotated", 200) and always(client, KEY, 401), 15, "the key is not rotated")
    pod.volumes.write("keys", {"demo-key": KEY})
    wait(lambda: always(client, KEY, 200) and always(client, "rotated", 401), 15, "the old key is not back")


def always(client: Client, key: str, status: int) -> bool:
    """True when every worker of the processor, as far as twenty questions tell, has that answer to the key."""
    return all(client.status(key=key) == status for _ in range(20))


@pytest.mark.parametrize("container", ["drain", "mock", "processor", "envoy"])
def test_a_container_that_is_killed_comes_back(pod: Pod, container: str) -> None:
    client, before = Client(pod), pod.restarts[container]
    pod.kill(container)
    wait(lambda: pod.restarts[container] > before, 15, "it was not started again")
    wait(lambda: pod.is_ready() and client.status() == 200, 20, "the pod is not back")
    assert [client.status() for _ in range(20)] == [200] * 20


def with_slow_model(directory: Path) -> Path:
    """The settings of the chart's trial, with a model whose answers take ten seconds."""
    values = yaml.safe_load((CHART / "ci/mock-values.yaml").read_text())
    settings = yaml.safe_load(values["gateway"])
    settings["models"]["slow"] = {"provider": "sandbox", "model": "stub+pace=250ms+words=40"}
    file = directory / "gateway.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def test_a_pod_that_is_deleted_ends_its_streams_first(tmp_path: Path) -> None:
    objects = rendered("mock", "--set-file", f"gateway={with_slow_model(tmp_path)}")
    pod = Pod("extproc-b", 78, objects, IMAGES, tmp_path / "volumes")
    with running(pod):
        client = Client(pod)
        stream = client.ask("slow", stream=True)
        assert stream.read(6) == b"data: "
        ended: list[float] = []
        thread = threading.Thread(target=lambda: ended.append(pod.terminate()))
        thread.start()
        wait(lambda: not pod.probe_by_name("processor", "readinessProbe"), 15, "the pod is still ready")
        text = stream.read()
        stream.close()
        over = time.monotonic()
        thread.join()
        assert text.endswith(b"data: [DONE]\n\n")
        assert time.monotonic() - over < 10
        assert ended[0] < pod.spec["terminationGracePeriodSeconds"]
        codes = {
            name: run("podman", "inspect", "-f", "{{.State.ExitCode}}", f"{pod.name}-{name}").strip()
            for name in pod.restarts
            if name != "render"
        }
        assert codes == dict.fromkeys(codes, "0")
