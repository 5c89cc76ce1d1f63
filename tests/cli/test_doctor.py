"""`extproc doctor`, against a scripted gateway."""

import json
import ssl
import time
from email.utils import formatdate

import pytest

from extproc import __version__
from tests.certificates import make
from tests.outbound.endpoint import endpoint, keeping, reply

KEY = "sk-gw-known"
SETTINGS = """
status: {address: 127.0.0.1, port: %s}
providers:
  a: {kind: openai, api_key: env:DOCTOR_A}
  b: {kind: openai, api_key: env:DOCTOR_B}
models: {m: {provider: a}, n: {provider: b}}
consumers: [{name: alice, keys: [{env: DOCTOR_KEY}]}]
stores: {counters: "memory:", ledger: "memory:"}
budgets: [{name: b, unit: requests, limit: 5, window: minute}]
"""


class Fake:
    """The answers of a gateway; listener, status port and admin API have one address."""

    def __init__(self):
        self.paths = {"/healthz": (200, b"ok\n"), "/readyz": (200, b"ok\n"), "/budgets": (200, b"{}")}
        self.paths["/usage"] = self.paths["/me"] = 200, b"{}"
        self.stores = {name: {"problem": "", "remark": ""} for name in ("counters", "ledger")}
        self.paths["/openapi.json"] = 200, b'{"info": {"version": "%s"}}' % __version__.encode()
        self.listener = {None: 401, KEY: 200}  # by key
        self.clock = 0.0
        self.keys = []

    def __call__(self, handler):
        path = handler.path.partition("?")[0]
        if path == "/v1/models":
            self.keys.append(handler.headers.get("authorization"))
            key = (handler.headers.get("authorization") or "").removeprefix("Bearer ") or None
            status = self.listener.get(key, 401)
            body = b"{}" if status == 200 else b'{"error": {"message": "This key is disabled."}}'
            handler.send_response_only(status)
            handler.send_header("date", formatdate(time.time() + self.clock, usegmt=True))
            handler.send_header("content-length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        elif path == "/stores" and self.stores is not None:
            reply(json.dumps(self.stores).encode(), 200)(handler)
        else:
            status, body = self.paths.get(path, (404, b"{}"))
            reply(body, status)(handler)


@pytest.fixture
def examine(run, tmp_path, monkeypatch):
    for name in ("DOCTOR_A", "DOCTOR_B", "DOCTOR_KEY"):
        monkeypatch.setenv(name, KEY)

    def call(fake, *more, key=True, settings=SETTINGS):
        with endpoint(fake) as (address, _):
            file = tmp_path / "gateway.yaml"
            file.write_text(settings % address.partition(":")[2])
            given = ["--key", "env:DOCTOR_KEY"] if key else []
            url = f"http://{address}"
            status, out, err = run("doctor", "-c", file, "--listener", url, "--url", url, *given, *more)
        assert KEY not in out + err
        return status, [line for line in out.splitlines() if line.startswith("WRONG")], out + err

    return call


def test_a_healthy_gateway_has_nothing_wrong(examine):
    status, wrong, text = examine(Fake())
    assert (status, wrong) == (0, []), text
    names = [
        "settings",
        "secrets",
        "processor",
        "processor",
        "clock",
        *["listener"] * 3,
        "version",
        "counters",
        "ledger",
    ]
    assert [line.split()[:2] for line in text.splitlines() if line[0] != " "] == [["ok", name] for name in names]


def test_a_key_is_missed_only_where_a_name_leads_nowhere_without_it(examine, monkeypatch):
    monkeypatch.delenv("DOCTOR_B")
    spare = SETTINGS.replace(
        "n: {provider: b}}", '"b/*": {provider: b}}\nvirtual_models: {v: {targets: [{model: b/x}, {model: m}]}}'
    )
    status, wrong, text = examine(Fake(), settings=spare)
    assert (status, wrong) == (0, [])
    assert "--    secrets    the key of the provider b is not set here" in text
    monkeypatch.delenv("DOCTOR_A")
    status, wrong, text = examine(Fake(), settings=spare)
    assert status == 1
    assert "nothing else serves m, unless" in text
    assert "nothing else serves v, unless" in text


@pytest.mark.parametrize(
    ("metrics", "status", "fault", "told"),
    [
        ((200, b"vllm:num_requests_waiting 0\nvllm:num_requests_running 1\n"), 0, False, "it lacks kv_cache, prefix"),
        ((200, b"vllm:num_requests_running 1\n"), 1, True, "lacks waiting, kv_cache"),
        ((404, b""), 1, True, "/metrics answers 404"),
    ],
)
def test_metrics_that_the_servers_of_a_pool_lack_are_named(examine, metrics, status, fault, told):
    fake = Fake()
    fake.paths["/metrics"] = metrics
    with endpoint(fake) as (address, _):
        pool = f"providers:\n  l: {{kind: vllm, base_url: 'http://{address}/v1', pool: {{endpoints: ['{address}']}}}}"
        found, wrong, text = examine(Fake(), settings=SETTINGS.replace("providers:", pool))
    assert (found, len(wrong) == 1) == (status, fault), text
    assert told in text


def test_a_change_on_its_way_is_no_fault_unless_envoy_does_not_take_it(examine):
    fake = Fake()
    fake.paths["/readyz"] = 200, b"ok\nsettings are stale: a change of the file is being read\n"
    status, wrong, text = examine(fake)
    assert (status, wrong) == (0, [])
    assert "takes seconds: ask again" in text
    fake.paths["/readyz"] = 200, b"ok\nsettings are stale: changes of providers.a wait: Envoy has not got them yet\n"
    status, [wrong], text = examine(fake)
    assert (status, "Envoy has not got them yet" in wrong, "is Envoy up?" in text) == (1, True, True)


def test_each_fault_is_found_alone(examine, monkeypatch):
    def faulty(change):
        fake = Fake()
        change(fake)
        return fake

    stale = b"ok\nsettings are stale: changes of providers bind at a restart\n"
    for change, found in (
        (lambda fake: fake.paths.update({"/healthz": (503, b"stands still\n")}), "/healthz: stands still"),
        (lambda fake: fake.paths.update({"/readyz": (503, b"draining\n")}), "/readyz: draining"),
        (lambda fake: fake.paths.update({"/readyz": (200, stale)}), "settings are stale"),
        (lambda fake: fake.paths.update({"/budgets": (503, b"")}), "counters"),
        (lambda fake: fake.paths.update({"/usage": (503, b"")}), "ledger"),
        (lambda fake: fake.listener.update({KEY: 401}), "the given key: status 401 (This key is disabled.)"),
        (lambda fake: fake.listener.update({None: 200}), "no key: status 200"),
        (lambda fake: fake.listener.update({"sk-extproc-doctor-no-such-key": 200}), "an unknown key: status 200"),
        (lambda fake: setattr(fake, "clock", 60.0), "clock"),
        (lambda fake: fake.paths.update({"/openapi.json": (200, b'{"info": {"version": "9"}}')}), "the gateway is 9"),
        (lambda fake: setattr(fake, "clock", -60.0), "clock"),
    ):
        status, wrong, text = examine(faulty(change))
        assert (status, len(wrong)) == (1, 1), text
        assert found in wrong[0]
    monkeypatch.delenv("DOCTOR_B")
    status, wrong, text = examine(Fake())
    assert (status, len(wrong)) == (1, 1), text
    assert "provider b is not set" in wrong[0]


def test_a_store_that_cannot_be_written_is_found(examine):
    for name, facts, text, remedy in (
        ("counters", {"problem": "ReadOnlyError"}, "reads the store, but cannot write it: ReadOnlyError", "replica"),
        ("counters", {"problem": "/v/c.db: database or disk is full"}, "disk is full", "make room on the disk"),
        ("counters", {"problem": "lately (cannot connect: AuthenticationError)"}, "cannot write", "password is wrong"),
        ("counters", {"problem": "", "remark": "it may evict budgets: set noeviction"}, "evict", "begin at zero"),
        ("ledger", {"problem": "(ReadOnlySqlTransaction 25006)"}, "cannot write", "standby"),
        ("ledger", {"problem": "(OperationalError SQLITE_FULL)"}, "cannot write", "make room"),
        ("ledger", {"problem": "(OperationalError)"}, "cannot write", "is the server up?"),
        ("ledger", {"problem": "odd"}, "cannot write", "the gateway's log"),
    ):
        fake = Fake()
        fake.stores[name] = {"remark": "", **facts}
        status, wrong, out = examine(fake)
        assert (status, len(wrong)) == (1, 1), out
        assert wrong[0].split()[1] == name
        assert text in wrong[0]
        assert remedy in out.partition(wrong[0])[2].split("\n")[1]


def test_a_gateway_that_does_not_examine_its_stores_is_no_fault(examine):
    fake = Fake()
    fake.stores = None  # of an older release
    status, wrong, out = examine(fake)
    assert (status, wrong) == (0, []), out
    assert "--    counters   the gateway reads the store; whether it writes it is not known" in out


def test_an_admin_api_that_refuses_is_told_once(examine):
    fake = Fake()
    fake.paths["/me"] = 401, b"{}"
    status, wrong, out = examine(fake)
    assert (status, [line.split()[1] for line in wrong]) == (1, ["admin"]), out
    assert "is not that of the running gateway" in out


@pytest.fixture
def secure(run, tmp_path, monkeypatch):
    """`secure(certificate, key, shown)`: examine a gateway with these files, whose listener shows another pair."""
    for name in ("DOCTOR_A", "DOCTOR_B", "DOCTOR_KEY"):
        monkeypatch.setenv(name, KEY)

    def call(certificate, key, shown):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*shown)
        with endpoint(Fake()) as (address, _), keeping(Fake(), tls=context) as (door, _):
            port = door.rpartition(":")[2]
            tls = f"{{certificate: 'file:{certificate}', key: 'file:{key}'}}"
            listener = f"listener: {{address: 127.0.0.1, port: {port}, tls: {tls}}}\n"
            file = tmp_path / "gateway.yaml"
            file.write_text(listener + SETTINGS % address.partition(":")[2])
            _, out, _ = run("doctor", "-c", file, "--url", f"http://{address}")
        return [line.split(maxsplit=2) for line in out.splitlines() if " tls " in line[:12]]

    return call


def test_the_certificates_of_the_settings_and_of_the_listener_are_examined(secure, tmp_path):
    one, two = make(tmp_path, "one"), make(tmp_path, "two")
    ended = make(tmp_path, "ended", -90, -2)
    assert [line[0] for line in secure(*one, one)] == ["ok", "ok"]
    [first, second] = secure(*one, two)
    assert (first[0], second[0]) == ("ok", "WRONG")
    assert "shows another certificate than that of the settings" in second[2]
    [first, second] = secure(one[0], two[1], one)
    assert (first[0], second[0]) == ("WRONG", "ok")
    assert f"{one[0]} does not fit its private key file:{two[1]}" in first[2]
    [first, second] = secure(*ended, ended)
    assert "has ended on" in first[2]
    assert "shows has ended on" in second[2]
    [first, second] = secure(tmp_path / "none", one[1], two)
    assert (first[0], second[0]) == ("--", "ok"), "the files may be in Envoy's container alone"


def test_the_key_is_not_sent_to_an_address_that_lets_strangers_in(examine):
    for stranger in (None, "sk-extproc-doctor-no-such-key"):
        fake = Fake()
        fake.listener[stranger] = 200
        assert examine(fake)[0] == 1
        assert f"Bearer {KEY}" not in fake.keys


def test_an_open_gateway_and_a_missing_key_are_nothing_wrong(examine):
    fake = Fake()
    fake.listener[None] = 200
    status, wrong, text = examine(
        fake, key=False, settings=SETTINGS.partition("budgets")[0] + "auth: {required: false}\n"
    )
    assert (status, wrong) == (0, []), text
    assert "--    listener   whether a key is accepted is not known" in text
    assert "ok    counters   the gateway reads and writes the store" in text


def test_a_gateway_that_is_down_is_reported_in_each_line(examine, run, tmp_path):
    examine(Fake())
    down = "http://127.0.0.1:1"
    file = tmp_path / "gateway.yaml"
    status, out, err = run("doctor", "-c", file, "--listener", down, "--url", down)
    wrong = [line.split()[1] for line in out.splitlines() if line.startswith("WRONG")]
    assert (status, wrong, err) == (1, ["processor", "listener", "admin"], "")
    assert "version, counters and ledger are not examined" in out


def test_settings_that_do_not_load_are_named(run, tmp_path):
    file = tmp_path / "gateway.yaml"
    file.write_text("modles: {}\n")
    status, out, err = run("doctor", "-c", file)
    assert (status, out) == (1, "")
    assert f"{file}:1:" in err


def test_the_address_may_be_the_base_url_of_clients_and_needs_its_scheme(run, tmp_path, monkeypatch):
    for name in ("DOCTOR_A", "DOCTOR_B"):
        monkeypatch.setenv(name, KEY)
    with endpoint(Fake()) as (address, _):
        (tmp_path / "gateway.yaml").write_text(SETTINGS % address.partition(":")[2])
        given = ("doctor", "-c", tmp_path / "gateway.yaml", "--url", f"http://{address}", "--listener")
        status, out, _ = run(*given, f"http://{address}/v1/")
        assert (status, "an unknown key: status 401" in out) == (0, True), out
        status, out, err = run(*given, address)
        assert (status, out) == (1, "")
        assert "--listener: write the address with its scheme" in err


def test_a_worker_that_is_away_starts_again_by_itself(examine):
    fake = Fake()
    fake.paths["/readyz"] = 200, b"ok\nworker 1 is away\n"
    status, found, out = examine(fake)
    assert (status, len(found)) == (1, 1)
    assert "its supervisor starts it again" in out


def test_the_version_of_envoy_is_told_by_its_admin_socket(examine, tmp_path, monkeypatch):
    said = {}
    monkeypatch.setattr("extproc.cli._drain.ask", lambda path, method, what: said[path, method, what])
    socket = str(tmp_path / "admin.sock")
    for version, wrong, text in (
        ("a1b2/1.40.3/Clean/RELEASE/BoringSSL", 0, "Envoy is 1.40.3"),
        ("a1b2/1.39.9/Clean/RELEASE/BoringSSL", 1, "use Envoy 1.40"),
        ("a1b2/1.41.0/Clean/RELEASE/BoringSSL", 0, "tested with 1.40"),
        ("odd", 1, "does not tell Envoy's version"),
    ):
        said[socket, "GET", "/server_info"] = f'{{"version": "{version}"}}'
        status, found, out = examine(Fake(), "--envoy-admin", socket)
        assert (status, len(found)) == (wrong, wrong), out
        assert text in out
