"""Transports side by side, about a minute: `python -m bench.transport`.

    do-nothing   Envoy with one ext_proc filter, four messages a request, before a processor that answers "go on";
                 `tls` is grpcio over TCP with certificates on both sides, for a processor on another machine
    gateway      the whole of it: two attachments, the hop, authentication, a budget, ledger, metrics

Arms take turns, round by round. CPU is the scheduler's count, in microseconds; figures are medians of the rounds.
All processes of an arm share one core. Compare figures within the table only, because other work on the
machine changes all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from bench import load
from bench.arms import BESIDE, Arm, Stage, pin, staged, wait
from bench.harness import alone, free_port
from tests import certificates

TRANSPORTS = ("grpcio", "native")
IN_FLIGHT = (1, 8, 64)
_TYPES = "type.googleapis.com/envoy.extensions"


def nothing(stage: Stage, transport: str) -> Arm:
    """Envoy with one ext_proc filter, and a processor that does nothing."""
    sock, port = str(stage.folder / f"{transport}.sock"), free_port()
    processor = stage.spawn([sys.executable, "-m", "bench.noop", "--transport", transport, "--socket", sock])
    deadline = time.monotonic() + 30
    while not Path(sock).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    file = stage.folder / f"nothing-{transport}.yaml"
    file.write_text(yaml.safe_dump(_with_ext_proc(alone(port, stage.stub), sock)))
    return stage.ready(Arm(f"do-nothing, {transport}", port, {"Envoy": stage.envoy(file), "processor": processor}))


def nothing_over_tls(stage: Stage) -> Arm:
    """The same over TCP, with certificates on both sides."""
    own, port, ours = stage.folder / "tls", free_port(), free_port()
    own.mkdir()
    certificate, key = certificates.make(own, "localhost")
    for name, file in (("tls.crt", certificate), ("tls.key", key), ("ca.crt", certificate)):
        shutil.copy(file, own / name)
    command = [sys.executable, "-m", "bench.noop", "--transport", "grpcio", "--tls", str(own)]
    processor = stage.spawn([*command, "--socket", f"127.0.0.1:{ours}"])
    wait(ours)
    config = _with_ext_proc(alone(port, stage.stub), "")
    cluster = config["static_resources"]["clusters"][-1]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": ours}}
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = address
    context: dict[str, Any] = {"@type": f"{_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "localhost"}
    context["common_tls_context"] = {
        "tls_certificates": [{"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}],
        "validation_context": {"trusted_ca": {"filename": certificate}},
    }
    cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    file = stage.folder / "nothing-tls.yaml"
    file.write_text(yaml.safe_dump(config))
    return stage.ready(Arm("do-nothing, tls", port, {"Envoy": stage.envoy(file), "processor": processor}))


def _with_ext_proc(config: dict[str, Any], sock: str) -> dict[str, Any]:
    resources = config["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    modes = {"request_header_mode": "SEND", "response_header_mode": "SEND"}
    modes |= {"request_body_mode": "BUFFERED", "response_body_mode": "BUFFERED"}
    ext_proc = {
        "@type": f"{_TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "extproc"}},
        "message_timeout": "10s",
        "processing_mode": modes,
    }
    manager["http_filters"].insert(0, {"name": "envoy.filters.http.ext_proc", "typed_config": ext_proc})
    http2 = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": sock}}}}
    resources["clusters"].append(
        {
            "name": "extproc",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "extproc", "endpoints": [{"lb_endpoints": [endpoint]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        }
    )
    return config


def measure(arm: Arm, requests: int, concurrency: int) -> tuple[float, float, float]:
    """Microseconds of Envoy and of the processor for a request, and the median latency in milliseconds."""
    before = arm.cpu()
    result = asyncio.run(load.run(arm.port, load.request("stub"), total=requests, concurrency=concurrency))
    time.sleep(0.05)  # access logs and ledger rows are part of the work
    if result.errors:
        raise SystemExit(f"{arm.name}: {len(result.errors)} errors, the first: {result.errors[0]}")
    used = {name: (seconds - before[name]) * 1e6 / requests for name, seconds in arm.cpu().items()}
    return used["Envoy"], used["processor"], statistics.median(result.latencies) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300, help="in a round")
    options = parser.parse_args()
    pin(BESIDE)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, staged(Path(folder)) as stage:
        arms = [*(nothing(stage, transport) for transport in TRANSPORTS), nothing_over_tls(stage)]
        arms += [stage.gateway(f"gateway, {kind}", processor=f", transport: {kind}") for kind in TRANSPORTS]
        for arm in arms:
            measure(arm, 200, 8)  # warm up
        print(f"{'':<24}{'in flight':>10}{'Envoy µs':>12}{'processor µs':>14}{'both µs':>10}{'p50 ms':>10}")
        for concurrency in IN_FLIGHT:
            found: dict[str, list[tuple[float, float, float]]] = {arm.name: [] for arm in arms}
            for number in range(options.rounds):
                for arm in arms if number % 2 == 0 else reversed(arms):
                    found[arm.name].append(measure(arm, options.requests, concurrency))
            for arm in arms:
                envoy, ours, p50 = (statistics.median(column) for column in zip(*found[arm.name], strict=True))
                print(f"{arm.name:<24}{concurrency:>10}{envoy:>12.0f}{ours:>14.0f}{envoy + ours:>10.0f}{p50:>10.2f}")


if __name__ == "__main__":
    main()
