"""One processor for the Envoys of other machines: TCP, with certificates on both sides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from extproc.envoy.envoy_config import attach, processor
from extproc.envoy.server import wire
from extproc.settings import config
from tests import certificates
from tests.e2e.conftest import Gateway
from tests.e2e.test_attach import ask, attached

HOST = "localhost"
PROCESS = f"/{wire.SERVICE}/{wire.METHOD}"
LISTENERS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


def tls(folder: Path) -> dict[str, Any]:
    """`processor.tls`, with certificates of the processor, of a gateway and of a stranger of the same authorities."""
    made = {name: certificates.make(folder, name, hosts=hosts) for name, hosts in (
        ("processor", [HOST]), ("edge", ["edge.example.com"]), ("stranger", ["other.example.com"])
    )}  # fmt: skip
    (folder / "ca.crt").write_text("".join(Path(made[name][0]).read_text() for name in ("edge", "stranger")))
    files = {key: f"file:{path}" for key, path in zip(("certificate", "key"), made["processor"], strict=True)}
    return {**files, "client_ca": f"file:{folder}/ca.crt", "gateways": ["edge.example.com"], "host": HOST}


def printed_socket(folder: Path, given: dict[str, Any]) -> Any:
    """The transport socket of the cluster that `extproc envoy --attach` prints, with the files of this test."""
    text = yaml.safe_dump({
        "processor": {"address": "0.0.0.0:1", "tls": given},
        "providers": {"openai": {"kind": "openai", "api_key": "env:HOME"}},
        "models": {"gpt-4o": {"provider": "openai"}},
    })  # fmt: skip
    [cluster] = [each for each in yaml.safe_load(attach(config.parse(text))) if each.get("name") == processor.CLUSTER]
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert (cluster["type"], address) == ("STRICT_DNS", {"address": HOST, "port_value": 1})
    here = {processor.CA: "processor.crt", processor.CERTIFICATE[0]: "edge.crt", processor.CERTIFICATE[1]: "edge.key"}
    printed = yaml.safe_dump(cluster["transport_socket"])
    for path, name in here.items():
        printed = printed.replace(path, f"{folder}/{name}")
    return yaml.safe_load(printed)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("afar")
    given = tls(folder)
    with attached(folder, tls=given, socket=printed_socket(folder, given)) as one:
        yield one


def code(gateway: Gateway, name: str, call: str = PROCESS) -> grpc.StatusCode:
    """The end of a call to the processor with the certificate `name`, or without one."""
    folder = gateway.file.parent
    own = [(folder / f"{name}.{end}").read_bytes() for end in ("key", "crt")] if name else [None, None]
    credentials = grpc.ssl_channel_credentials((folder / "processor.crt").read_bytes(), *own)
    address = yaml.safe_load(gateway.file.read_text())["processor"]["address"].replace("127.0.0.1", HOST)
    metadata = (("x-extproc-attachment", "attempt"),)
    with grpc.secure_channel(address, credentials) as channel:
        answers = channel.stream_stream(call)(iter([b"\xff"]), timeout=10, metadata=metadata)
        with pytest.raises(grpc.RpcError):
            list(answers)
        found = answers.code()
    assert isinstance(found, grpc.StatusCode)
    return found


def test_a_gateway_of_another_machine_is_served(gateway: Gateway) -> None:
    assert ask(gateway).headers["x-ai-provider"] == "openai"
    assert b"[DONE]" in ask(gateway, stream=True).content
    assert gateway.last(lambda entry: entry.get("stream"))["usage_source"] == "provider"
    assert ask(gateway, key=None).json()["error"]["code"] == "missing_key"


def test_only_named_gateways_reach_the_processor_and_none_gets_its_resources(gateway: Gateway) -> None:
    assert code(gateway, "edge") is grpc.StatusCode.INVALID_ARGUMENT  # no message of ext_proc
    assert code(gateway, "stranger") is grpc.StatusCode.PERMISSION_DENIED
    assert code(gateway, "") is grpc.StatusCode.UNAVAILABLE
    assert code(gateway, "edge", LISTENERS) is grpc.StatusCode.UNIMPLEMENTED
    assert gateway.metric("extproc_peer_faults_total", kind="name") == 1


def test_rotated_certificates_are_taken_and_a_misfit_is_not(gateway: Gateway, tmp_path: Path) -> None:
    folder = gateway.file.parent
    own = [folder / "processor.crt", folder / "processor.key"]
    kept = [shutil.copy(file, tmp_path / f"{file.name}.kept") for file in own]
    new = certificates.make(tmp_path, "processor", hosts=[HOST])
    Path(new[0]).replace(own[0])
    assert code(gateway, "stranger") is grpc.StatusCode.UNAVAILABLE, "the client knows the new certificate alone"
    Path(new[1]).replace(own[1])
    assert code(gateway, "stranger") is grpc.StatusCode.PERMISSION_DENIED
    for file, before in zip(own, kept, strict=True):
        before.replace(file)
    assert ask(gateway).status_code == 200, "Envoy knows the certificate of its start alone"
