"""Reloads of a running gateway: changes of settings, certificates and key files take effect within seconds. No request
fails and no stream is cut meanwhile.

Settings, certificate and key are files as Kubernetes shows them: `..data` is a symlink that is swapped.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.certificates import make
from tests.e2e.conftest import KEY, Ended, Gateway, chat_body, eventually, run_gateway
from tests.e2e.idp import Authority

SETTINGS = """
providers:
  sandbox: {{kind: mock, base_url: "{{mock_sandbox}}"{sandbox}}}
  patient: {{kind: mock, base_url: "{{mock_patient}}"}}
  {more}
models:
  stub: {{provider: sandbox}}
  slow: {{provider: patient}}
  {models}
consumers:
  - {{name: traffic, keys: [{{env: EXTPROC_DEMO_KEY}}]}}
  - {{name: rotated, keys: [{{file: "{folder}/keys/key"}}]}}
limits: {{request_body: {body}, stream_duration: 60s}}
stores: {{counters: "memory:"}}
"""
RATE = 200  # requests per second
STREAMS = 10


class Volume:
    """A directory as the kubelet writes it: files are symlinks into `..data`, which is one too and is swapped."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self._folder, self._version = folder, 0
        folder.mkdir(exist_ok=True)
        self.swap(files)
        for name in files:
            (folder / name).symlink_to(Path("..data", name))

    def swap(self, files: dict[str, str]) -> float:
        """Put these contents in place of the earlier ones. Returns the time."""
        self._version += 1
        place = self._folder / f"..{self._version}"
        place.mkdir()
        for name, content in files.items():
            (place / name).write_text(content, encoding="utf-8")
        (self._folder / "..new").symlink_to(place.name)
        (self._folder / "..new").rename(self._folder / "..data")
        return time.monotonic()


class Reloaded:
    """A gateway whose files are volumes."""

    def __init__(self, gateway: Gateway, folder: Path, volumes: dict[str, Volume], authority: Authority) -> None:
        self.gateway, self.folder, self.volumes, self._authority = gateway, folder, volumes, authority
        text = gateway.file.read_text()
        self._head = text.partition("providers:")[0]

    def configure(
        self,
        *,
        sandbox: str = "",
        more: str = "",
        models: str = "",
        body: str = "1MiB",
        change: tuple[str, str] = ("", ""),
    ) -> float:
        """Give the gateway other settings. Returns the time of the swap."""
        text = SETTINGS.format(sandbox=sandbox, more=more, models=models, body=body, folder=self.folder)
        for name, url in self.gateway.mocks.items():
            text = text.replace("{mock_" + name + "}", url + "/v1")
        return self.volumes["settings"].swap({"gateway.yaml": (self._head + text).replace(*change)})

    def certify(self, name: str) -> float:
        return self.volumes["certs"].swap(pem(self._authority, name))

    @property
    def port(self) -> int:
        return int(self.gateway.url.rpartition(":")[2])

    def certificate(self) -> bytes:
        """The certificate that a new connection gets."""
        with socket.create_connection(("127.0.0.1", self.port)) as raw, insecure().wrap_socket(raw) as wrapped:
            return wrapped.getpeercert(binary_form=True) or b""

    def chat(self, model: str, key: str = KEY) -> int:
        """The status of one request, on a connection of its own."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=insecure())
        try:
            return ask(connection, model, key)
        finally:
            connection.close()

    def stale(self) -> str:
        ready: str = self.gateway.http.get(self.gateway.status + "/readyz").text
        return ready.partition("settings are stale: ")[2].strip()


def pem(authority: Authority, name: str) -> dict[str, str]:
    certificate, key = authority.give(name, dns=(name,))
    return {"tls.crt": Path(certificate).read_text(), "tls.key": Path(key).read_text()}


def insecure() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def ask(connection: http.client.HTTPConnection, model: str, key: str = KEY) -> int:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(chat_body(model)), headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloaded]:
    folder = tmp_path_factory.mktemp("reload")
    authority = Authority(folder)
    volumes = {
        "settings": Volume(folder, {"gateway.yaml": ""}),
        "certs": Volume(folder / "certs", pem(authority, "first.example")),
        "keys": Volume(folder / "keys", {"key": "sk-gw-before"}),
    }
    text = SETTINGS.format(sandbox="", more="", models="", body="1MiB", folder=folder)
    tls = f"tls: {{certificate: 'file:{folder}/certs/tls.crt', key: 'file:{folder}/certs/tls.key'}}"
    for gateway in run_gateway(folder, text, ("sandbox", "patient", "late"), {}, listener=tls):
        yield Reloaded(gateway, folder, volumes, authority)


class Load:
    """Keep-alive clients at `RATE`, and streams that are open all the time. `errors` is empty when all went well."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port, self._end = port, time.monotonic() + seconds
        self.errors: list[str] = []
        self.answered = self.streamed = 0
        clients = 10
        work: list[Callable[[], None]] = [lambda: self._client(clients / RATE)] * clients + [self._stream] * STREAMS
        self._threads = [threading.Thread(target=each) for each in work]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _client(self, pause: float) -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=20, context=insecure())
        while (begun := time.monotonic()) < self._end:
            try:
                status = ask(connection, "stub")
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                connection.close()
            else:
                self.answered += 1
                if status != 200:
                    self.errors.append(f"status {status}")
            time.sleep(max(0.0, begun + pause - time.monotonic()))
        connection.close()

    def _stream(self) -> None:
        """One stream after the other."""
        with httpx.Client(verify=False, trust_env=False, timeout=20) as client:
            while time.monotonic() < self._end:
                body, headers = chat_body("slow", stream=True), {"authorization": f"Bearer {KEY}"}
                try:
                    with client.stream(
                        "POST", f"https://127.0.0.1:{self._port}/v1/chat/completions", json=body, headers=headers
                    ) as answer:
                        whole = answer.read()
                except httpx.HTTPError as error:
                    self.errors.append(f"stream: {error!r}")
                else:
                    self.streamed += 1
                    if not whole.endswith(b"data: [DONE]\n\n"):
                        self.errors.append(f"stream: {answer.status_code} {whole[-100:]!r}")


def within(begun: float, happened: Callable[[], object], what: str) -> None:
    """Wait for an effect, and print how long it took."""
    eventually(happened, timeout=30)
    print(f"{what}: {time.monotonic() - begun:.1f} s")  # noqa: T201


def change_everything(reloaded: Reloaded) -> None:
    """Each kind of change, one after the other."""
    late = {"more": 'late: {kind: mock, base_url: "{mock_late}"}', "models": "late: {provider: late}"}
    begun = reloaded.configure(**late)
    within(begun, lambda: reloaded.chat("late") == 200, "a new provider")

    before, begun = reloaded.certificate(), reloaded.certify("second.example")
    within(begun, lambda: reloaded.certificate() != before, "another certificate")

    begun = reloaded.volumes["keys"].swap({"key": "sk-gw-after"})
    within(begun, lambda: reloaded.chat("stub", "sk-gw-after") == 200, "another key of a consumer")
    assert reloaded.chat("stub", "sk-gw-before") == 401

    begun = reloaded.configure(sandbox=", timeout: 50s", body="2MiB")  # every listener and every try
    within(begun, lambda: reloaded.chat("late") == 404, "a removed model")
    eventually(lambda: reloaded.stale() != "")
    within(begun, lambda: reloaded.stale() == "", "other limits, a changed and a removed provider")


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.exhaustive)], ids=["once", "for-two-minutes"])
def test_no_request_fails_and_no_stream_is_cut_while_everything_changes(reloaded: Reloaded, rounds: int) -> None:
    """Run it with -s: it prints the seconds from the swap of a file to the effect."""
    reloaded.gateway.fault("patient", "words=60+pace=50ms")
    load = Load(reloaded.port, 11 * rounds)
    for _ in range(rounds):
        change_everything(reloaded)
        reloaded.configure()
        reloaded.volumes["keys"].swap({"key": "sk-gw-before"})
        eventually(lambda: reloaded.chat("stub", "sk-gw-before") == 200)
    load.join()
    print(f"{load.answered} answers, {load.streamed} streams, {len(load.errors)} errors")  # noqa: T201
    assert load.errors == []
    assert load.answered > 20 * rounds
    assert load.streamed >= STREAMS


def test_what_envoy_refuses_leaves_the_old_and_the_rest_of_the_change_applies(reloaded: Reloaded) -> None:
    reloaded.volumes["keys"].swap({"key": "sk-gw-before"})
    reloaded.configure(change=("name: rotated", "name: rotated, disabled: false"))
    eventually(lambda: reloaded.chat("stub", "sk-gw-before") == 200)
    before = reloaded.certificate()
    nowhere = (f"certificate: 'file:{reloaded.folder}/certs/", f"certificate: 'file:{reloaded.folder}/nowhere/")
    text = (reloaded.folder / "gateway.yaml").read_text().replace(*nowhere)
    assert "nowhere" in text
    reloaded.volumes["settings"].swap({"gateway.yaml": text.replace("disabled: false", "disabled: true")})
    eventually(lambda: "listener wait: Envoy refuses them: " in reloaded.stale(), timeout=30)
    assert reloaded.gateway.metric("extproc_settings_stale") == 1
    about = reloaded.gateway.http.get(reloaded.gateway.admin + "/me").json()
    assert "nowhere" in about["stale"]
    assert reloaded.chat("stub", "sk-gw-before") == 401
    assert reloaded.chat("stub") == 200
    assert reloaded.certificate() == before
    reloaded.configure()
    eventually(lambda: reloaded.stale() == "", timeout=30)


def test_a_team_changes_a_file_of_its_own_and_no_more(reloaded: Reloaded) -> None:
    file, key = reloaded.folder / "teams/ads.yaml", reloaded.folder / "team-key"
    file.parent.mkdir()
    key.write_text("sk-gw-ads")
    include = f"teams: {{ads: {{models: [stub]}}}}\ninclude: [{{files: ['{file.parent}/*.yaml'], team: ads}}]\n"
    reloaded.configure(change=("limits:", f"{include}limits:"))
    assert reloaded.chat("stub", "sk-gw-ads") == 401
    file.write_text(f"consumers: [{{name: banner, keys: [{{file: '{key}'}}]}}]")
    eventually(lambda: reloaded.chat("stub", "sk-gw-ads") == 200)
    assert reloaded.chat("slow", "sk-gw-ads") == 403
    file.write_text("teams: {ads: {models: [slow]}}")
    eventually(lambda: f"{file}:1:1: teams: this file may set" in reloaded.stale())
    assert reloaded.chat("stub", "sk-gw-ads") == 200
    reloaded.configure()
    eventually(lambda: reloaded.stale() == "" and reloaded.chat("stub", "sk-gw-ads") == 401)


def test_a_certificate_that_does_not_fit_or_has_ended_is_told(
    reloaded: Reloaded, extproc: Callable[..., Ended]
) -> None:
    reloaded.configure()
    before = reloaded.certificate()
    reloaded.certify("third.example")
    eventually(lambda: reloaded.certificate() != before and reloaded.stale() == "", timeout=30)
    served = reloaded.certificate()
    make(reloaded.folder, "ended", -90, -1)
    ended = {f"tls.{kind}": (reloaded.folder / f"ended.{kind}").read_text() for kind in ("crt", "key")}

    reloaded.volumes["certs"].swap({**pem(reloaded._authority, "fourth.example"), "tls.key": ended["tls.key"]})
    eventually(lambda: "does not fit its private key" in reloaded.stale(), timeout=30)
    assert f"file:{reloaded.folder}/certs/tls.crt" in reloaded.stale()
    eventually(lambda: reloaded.gateway.metric("extproc_settings_stale") == 1, timeout=30)
    assert reloaded.certificate() == served, "Envoy keeps the old one"
    done = extproc("doctor", "-c", reloaded.gateway.file)
    assert done.returncode == 1
    for text in ("WRONG processor  settings are stale: the certificate", "WRONG tls        the certificate file:"):
        assert text in done.stdout
    about = reloaded.gateway.http.get(reloaded.gateway.admin + "/me").json()
    assert "does not fit" in about["stale"]

    reloaded.volumes["certs"].swap(ended)
    ready = lambda: reloaded.gateway.http.get(reloaded.gateway.status + "/readyz").text  # noqa: E731
    eventually(lambda: f"the listener's certificate file:{reloaded.folder}/certs/tls.crt has ended on" in ready())
    eventually(lambda: reloaded.stale() == "", timeout=30)
    about = reloaded.gateway.http.get(reloaded.gateway.admin + "/me").json()
    assert "has ended on" in about["certificate"]
    eventually(lambda: reloaded.certificate() != served, timeout=30)
    assert "has ended on" in extproc("doctor", "-c", reloaded.gateway.file).stdout
    reloaded.certify("fifth.example")
    eventually(lambda: "has ended" not in ready(), timeout=30)
