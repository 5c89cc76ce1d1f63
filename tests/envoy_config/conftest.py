"""A real Envoy with the generated configuration, between a scripted processor and scripted providers."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy_data_plane.envoy.config.core.v3 import HeaderValue, HeaderValueOption
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.service.accesslog.v3 import StreamAccessLogsMessage, StreamAccessLogsResponse
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingRequest,
    ProcessingResponse,
    StreamedBodyResponse,
)
from envoy_data_plane.envoy.type.v3 import HttpStatus
from envoy_data_plane.google.protobuf import Struct

from extproc.envoy.envoy_config import bootstrap, render, write_secrets
from extproc.settings.config import Settings, parse
from extproc.words import contract
from extproc.words.exchange import Target

ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent))

WATCH = ProcessingMode(
    request_header_mode=ProcessingModeHeaderSendMode.SEND,
    request_body_mode=ProcessingModeBodySendMode.BUFFERED,
    response_header_mode=ProcessingModeHeaderSendMode.SEND,
    response_body_mode=ProcessingModeBodySendMode.FULL_DUPLEX_STREAMED,
    response_trailer_mode=ProcessingModeHeaderSendMode.SEND,
)


@dataclass
class Plan:
    """The scripted processor's answers to the next requests."""

    order: list[str] = field(default_factory=list)  # providers
    headers: dict[str, str] = field(default_factory=dict)
    refuse: int = 0
    crash: bool = False
    watch: bool = False  # the answer's body, from its headers on


class Processor:
    """A processor that answers ext_proc by a plan. It records every header it was sent, and every access log entry."""

    def __init__(self, path: str) -> None:
        self.plan = Plan()
        self.seen: list[tuple[str, str, dict[str, str]]] = []  # attachment, phase, headers
        self.attributes: list[dict[str, Any]] = []
        self.logs: list[tuple[str, Any]] = []
        self.watched = b""
        self._server = grpc.server(futures.ThreadPoolExecutor(64))
        process = grpc.stream_stream_rpc_method_handler(self._process, ProcessingRequest.parse, bytes)
        logs = grpc.stream_unary_rpc_method_handler(self._log, StreamAccessLogsMessage.parse, bytes)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "envoy.service.ext_proc.v3.ExternalProcessor", {"Process": process}
                ),
                grpc.method_handlers_generic_handler(
                    "envoy.service.accesslog.v3.AccessLogService", {"StreamAccessLogs": logs}
                ),
            )
        )
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def reset(self) -> None:
        self.plan = Plan()
        self.seen.clear()
        self.attributes.clear()
        self.watched = b""

    def headers(self, attachment: str, phase: str) -> list[dict[str, str]]:
        return [headers for who, when, headers in self.seen if (who, when) == (attachment, phase)]

    def log_entries(self, name: str, wanted: Callable[[Any], bool], seconds: float = 4.0) -> list[Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [entry for log, entry in self.logs if log == name and wanted(entry)]
            if found:
                return found
            time.sleep(0.05)
        return []

    def _process(self, requests: Iterator[ProcessingRequest], context: grpc.ServicerContext):
        who = dict(context.invocation_metadata())[contract.ATTACHMENT]
        for message in requests:
            if message.request_headers is not None:
                self._saw(who, "request", message.request_headers.headers)
                if self.plan.crash and who == contract.GATEWAY:
                    context.abort(grpc.StatusCode.INTERNAL, "scripted")
                if self.plan.refuse and who == contract.GATEWAY:
                    yield self._refusal()
                    return
                yield ProcessingResponse(request_headers=HeadersResponse(response=CommonResponse()))
            elif message.request_body is not None:
                yield (
                    self._forward()
                    if who != contract.ATTEMPT
                    else ProcessingResponse(
                        request_body=BodyResponse(response=_set({"x-attempted": "yes", "x-extproc-secret": "no"}))
                    )
                )
            elif message.response_headers is not None:
                self._saw(who, "response", message.response_headers.headers)
                self.attributes.append({key: value.to_dict() for key, value in message.attributes.items()})
                yield ProcessingResponse(
                    response_headers=HeadersResponse(response=_set({"x-extproc-mine": "no"})),
                    mode_override=WATCH if self.plan.watch else None,
                )
            elif message.response_body is not None:
                self.watched += message.response_body.body
                streamed = StreamedBodyResponse(
                    body=message.response_body.body, end_of_stream=message.response_body.end_of_stream
                )
                body = CommonResponse(body_mutation=BodyMutation(streamed_response=streamed))
                yield ProcessingResponse(response_body=BodyResponse(response=body))

    def _saw(self, who: str, phase: str, headers: Any) -> None:
        self.seen.append((who, phase, {item.key: item.raw_value.decode() or item.value for item in headers.headers}))

    def _forward(self) -> ProcessingResponse:
        plan = self.plan
        targets = [Target(f"m-{name}", name, "m") for name in plan.order]
        headers = {contract.ID: "exchange-1", contract.TARGETS: contract.encode_targets(targets)} if targets else {}
        response = _set(headers | plan.headers)
        response.clear_route_cache = True
        groups = [
            {"name": f"{index}", "clusters": [{"cluster_name": contract.try_cluster(name), "weight": 1}]}
            for index, name in enumerate(plan.order)
        ]
        order = {contract.ORDER_NAMESPACE: {contract.ORDER_KEY: groups}}
        return ProcessingResponse(
            request_body=BodyResponse(response=response),
            dynamic_metadata=Struct.from_dict(order) if plan.order else None,
        )

    def _refusal(self) -> ProcessingResponse:
        headers = _set({"content-type": "application/problem+json", "x-ai-error-origin": "gateway"}).header_mutation
        return ProcessingResponse(
            immediate_response=ImmediateResponse(
                status=HttpStatus(code=self.plan.refuse),
                headers=headers,
                body=b'{"mine":"100%"}',
                details="extproc_test",
            )
        )

    def _log(self, messages: Iterator[StreamAccessLogsMessage], _context: grpc.ServicerContext):
        name = ""
        for message in messages:
            name = message.identifier.log_name if message.identifier else name
            self.logs += [(name, entry) for entry in message.http_logs.log_entry]
        return StreamAccessLogsResponse()


def _set(headers: dict[str, str]) -> CommonResponse:
    options = [
        HeaderValueOption(header=HeaderValue(key=key, raw_value=value.encode())) for key, value in headers.items()
    ]
    return CommonResponse(header_mutation=HeaderMutation(set_headers=options))


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Provider(http.server.ThreadingHTTPServer):
    """A provider that records its requests and follows `behave`: a status, "hang", "reset", or seconds of silence."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.seen: list[Seen] = []
        self.behave: Any = 200
        self.extra: dict[str, str] = {}
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def reset(self) -> None:
        self.seen.clear()
        self.behave = 200
        self.extra = {}
        self.released.set()
        self.released = threading.Event()

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.seen.append(Seen(self.command, self.path, headers, body))
        behave = self.server.behave
        if behave == "hang":
            self.server.released.wait(20)
        if behave in ("hang", "reset"):
            self.close_connection = True
            return
        silence = behave if isinstance(behave, float) else 0.0
        time.sleep(silence)
        self.send_response(200 if silence else behave)
        answer = json.dumps({"served_by": self.server.port}).encode()
        for name, value in {"content-length": str(len(answer)), **self.server.extra}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer[:5])
        self.wfile.flush()
        time.sleep(silence)
        self.wfile.write(answer[5:])

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # Envoy disconnected first
            super().handle()

    def log_message(self, *_args: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class World:
    processor: Processor
    providers: dict[str, Provider]
    client: httpx.Client
    settings: Settings
    secrets: Path
    port: int
    socket: str
    spare_port: int

    def address(self, provider: str) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": self.providers[provider].port}}

    def post(self, path: str = "/v1/chat/completions", **options: Any) -> httpx.Response:
        options.setdefault("json", {"model": "m"})
        return self.client.post(path, **options)


SETTINGS = """
listener: {{address: 127.0.0.1, port: {port}}}
limits: {{request_body: 64KiB, stream_idle: 5s}}
providers:
  a: {{kind: openai, base_url: "http://127.0.0.1:{a}/base/v2", api_key: env:A_KEY, client_headers: [x-attempted]}}
  b:
    kind: openai
    base_url: "http://127.0.0.1:{b}/v1"
    api_key: env:B_KEY
    headers: {{x-org: "100%"}}
    client_headers: [x-attempted]
  keyless: {{kind: openai, base_url: "http://127.0.0.1:{a}/v1", api_key: env:MISSING_KEY}}
  down: {{kind: mock, base_url: "http://127.0.0.1:{down}"}}
  slow: {{kind: mock, base_url: "http://127.0.0.1:{a}/v1", timeout: 1s}}
  narrow: {{kind: mock, base_url: "http://127.0.0.1:{b}/v1", max_requests: 1, max_connections: 1}}
  fragile: {{kind: mock, base_url: "http://127.0.0.1:{b}/v1", outlier_detection: {{consecutive_5xx: 1}}}}
  secure: {{kind: mock, base_url: "https://localhost:{c}/v1", tls_ca: "{ca}"}}
  impostor: {{kind: mock, base_url: "https://127.0.0.1:{c}/v1", tls_ca: "{ca}"}}
  retired: {{kind: mock, disabled: true}}
models:
  m: {{provider: a}}
"""


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    place = tmp_path_factory.mktemp("tls")
    openssl = shutil.which("openssl") or pytest.skip("there is no openssl")
    options = ["-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-out", str(place / "cert.pem"), "-keyout", str(place / "key.pem")]
    subprocess.run([openssl, "req", *options, *names, *files], check=True, capture_output=True)
    return place / "cert.pem", place / "key.pem"


@pytest.fixture(scope="session")
def envoy() -> str:
    return ENVOY or pytest.skip("there is no envoy beside this Python")


@pytest.fixture(scope="session")
def validate(envoy: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Envoy's errors about a configuration; empty when it accepts it."""

    def run(text: str) -> str:
        path = tmp_path_factory.mktemp("validate") / "envoy.yaml"
        path.write_text(text)
        command = [envoy, "--mode", "validate", "-c", str(path), "-l", "error"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
        return "" if done.returncode == 0 else done.stderr + done.stdout

    return run


@pytest.fixture(scope="session")
def world(envoy: str, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("envoy")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    providers = {"a": Provider(), "b": Provider(), "c": Provider(tls)}
    port, admin = free_port(), free_port()
    ports = {name: provider.port for name, provider in providers.items()}
    text = SETTINGS.format(port=port, down=free_port(), ca=certificate[0], **ports)
    settings = parse(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_KEY", "key-of-a")
        patch.setenv("B_KEY", "key-of-b")
        missing = write_secrets(settings, place / "secrets")
    assert missing == ["keyless"]
    sock = str(place / "p.sock")
    tree = bootstrap(settings, secrets_dir=str(place / "secrets"), socket=sock, admin_port=admin)
    (place / "envoy.yaml").write_text(render(tree))
    processor = Processor(sock)
    try:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15)
        with running(envoy, place / "envoy.yaml", admin), client:
            yield World(processor, providers, client, settings, place / "secrets", port, sock, free_port())
    finally:
        processor.stop()
        for provider in providers.values():
            provider.stop()


@contextlib.contextmanager
def running(envoy: str, config: Path, admin: int) -> Iterator[None]:
    """An Envoy with this configuration, ready, until the end of the block."""
    with config.with_suffix(".log").open("wb") as log:
        command = [envoy, "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_ready(f"http://127.0.0.1:{admin}/ready", process, config.with_suffix(".log"))
            yield
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture
def run_envoy(envoy: str, tmp_path: Path) -> Callable[[dict[str, Any]], Any]:
    """Run Envoy with a configuration of the test's own, on an admin port of its own."""

    def run(tree: dict[str, Any]) -> Any:
        admin = free_port()
        address = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
        (tmp_path / "envoy.yaml").write_text(json.dumps(tree | {"admin": {"address": address}}))
        return running(envoy, tmp_path / "envoy.yaml", admin)

    return run


def _wait_ready(url: str, process: subprocess.Popen, log: Path) -> None:
    with httpx.Client(verify=False) as http:
        for _ in range(200):
            if process.poll() is not None:
                pytest.fail(f"Envoy ended:\n{log.read_text()[-4000:]}")
            with contextlib.suppress(httpx.TransportError):
                if http.get(url).status_code == 200:
                    return
            time.sleep(0.05)
    pytest.fail(f"Envoy is not ready:\n{log.read_text()[-4000:]}")


@pytest.fixture
def gateway(world: World) -> World:
    """The shared world, reset."""
    world.processor.reset()
    for provider in world.providers.values():
        provider.reset()
    return world
