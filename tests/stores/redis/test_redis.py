"""Events of a store across a network: it dies, hangs, is flushed, moves, refuses us, is shared by a fleet."""

import asyncio
import json
import logging
import random
import subprocess
import sys
import time

import pytest

from extproc.stores import (
    CountsLostError,
    Denied,
    Expired,
    Granted,
    Hold,
    Level,
    NotSentError,
    StoreError,
    check_counters,
    doubt_counters,
    open_counters,
    window_at,
)
from extproc.stores.redis import RedisURL, parse
from extproc.stores.redis.counters import RedisCounters
from extproc.wire.outbound.breaker import FAILURES, Breaker
from extproc.words.values import Secret
from tests.redis_server import RedisServer
from tests.stores.sent import send

LEASE = 60.0
HOLD = Hold("a", 0, 10, 4)
TIMEOUT = 0.2  # for a busy test machine


@pytest.fixture
def run(tmp_path):
    """Start a redis-server for this test."""
    RedisServer.need()
    servers = []

    def begin(*options, sentinel=""):
        folder = tmp_path / f"redis{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, *options, sentinel=sentinel))
        servers[-1].start()
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture
def server(run):
    return run()


@pytest.fixture
async def counters(server):
    counters = RedisCounters(RedisURL("127.0.0.1", server.port), timeout=TIMEOUT)
    yield counters
    await counters.close()


async def until_answered(call, seconds=15.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except StoreError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def until_open(counters):
    while not counters._link.breaker.open:
        with pytest.raises(StoreError):
            await counters.levels([("a", 0)])


# --- the server's clock


async def test_while_calls_are_frequent_a_settle_leaves_with_the_next_one(server, monkeypatch):
    """No client waits for it. Without another call it leaves after a while."""
    counters = RedisCounters(parse(server.url), timeout=5.0)
    monkeypatch.setattr("extproc.stores.redis.link._WAIT", 60.0)
    for number in range(1, 4):
        await counters.reserve(f"{number}", [Hold("a", 0, 100, 4)], LEASE)
    settled = [asyncio.ensure_future(counters.settle(f"{number}", [2])) for number in (1, 2)]
    await asyncio.sleep(0)  # both wait
    await counters.levels([("b", 0)])  # they left with it, and the server answers in order
    assert [one.done() and one.result() for one in settled] == [True, True]
    last = asyncio.ensure_future(counters.settle("3", [2]))
    _, pending = await asyncio.wait([last], timeout=0.05)
    assert pending == {last}
    assert (await counters.levels([("a", 0)]))[0] == Level(6, 0, None)
    assert await last
    monkeypatch.setattr("extproc.stores.redis.link._WAIT", 0.01)
    await counters.reserve("4", [HOLD], LEASE)
    assert await counters.settle("4", [2])
    await counters.close()


async def test_windows_follow_the_servers_clock(counters):
    windows = (60, 3600, 86400, 7 * 86400, -1, -3, 0)
    granted = await counters.reserve("r1", [Hold("a", window, 10, 1) for window in windows], LEASE)
    now = time.time()
    for window, level in zip(windows, granted.levels, strict=True):
        ends = window_at(now, window)[1]
        assert (level.resets_in is None) == (ends is None)
        assert ends is None or abs(level.resets_in - (ends - now)) < 5 or level.resets_in < 5


async def test_windows_equal_those_of_the_other_stores_at_all_times(server):
    moments = random.Random(7)
    now = 0.0
    counters = RedisCounters(RedisURL("127.0.0.1", server.port), lambda: now, 5.0)
    windows = (60, 3600, 86400, 7 * 86400, -1, -3, -12, -5)
    for _ in range(300):
        now = moments.choice([moments.uniform(0, 8e9), float(60 * moments.randrange(10**8)), 86400.0 * 365 * 54])
        levels = await counters.levels([("a", window) for window in windows])
        assert [level.resets_in for level in levels] == [window_at(now, window)[1] - now for window in windows]
    await counters.close()


async def test_ended_windows_expire_by_themselves(server, counters):
    await counters.reserve("r1", [Hold("a", 60, 10, 1), Hold("a", -1, 10, 1), Hold("a", 0, 10, 1)], LEASE)
    await counters.settle("r1", [1, 1, 1])
    lives = {key.split(":")[2]: int(server.cli("ttl", key)) for key in server.cli("keys", "*counts*").split()}
    assert 3600 <= lives["60"] <= 3661
    assert 28 * 86400 < lives["-1"] < 63 * 86400
    assert lives["0"] == -1


async def test_every_key_has_one_hash_tag(server, counters):
    await send(counters, "r1", [Hold("a{b}", 60, 10, 1)], LEASE)
    await counters.share("board{x}", "author", b"note", 60.0)
    await counters.reserve("r2", [Hold("run", 0, 10, 1, idle=60.0)], LEASE)
    await counters.settle("r2", [1], keep=True)
    await counters.expire()
    keys = server.cli("keys", "*").splitlines()
    assert len(keys) == 8
    assert all(key.startswith("{extproc}:") for key in keys)


async def test_no_key_is_left_behind(server):
    now = 0.0
    counters = RedisCounters(RedisURL("127.0.0.1", server.port), lambda: now, 5.0)
    for number in range(300):
        now = float(number)
        await counters.reserve(f"r{number}", [Hold(f"s{number}", 0, 10, 1, slot=True)], 10.0)
        if number % 2:
            await counters.settle(f"r{number}", [0], keep=number % 3 == 0)
            await counters.recorded([f"r{number}"])
        await counters.reserve(f"run{number}", [Hold(f"run:{number}", 0, 10, 1, idle=5.0)], 10.0)
        await counters.settle(f"run{number}", [number % 2])
        await counters.share(f"board-{number % 2}", f"author-{number}", b"x", 20.0)
        await counters.expire()
    now += 4000
    assert len(await counters.expire()) == 5
    now += 4000
    assert await counters.expire() == []
    assert server.cli("keys", "*") == "{extproc}:epoch"
    await counters.close()


# --- sharing


WORKER = """
import asyncio, json, sys
from extproc.stores import Granted, Hold
from extproc.stores.redis import RedisURL
from extproc.stores.redis.counters import RedisCounters

async def main(port, name):
    counters = RedisCounters(RedisURL("127.0.0.1", int(port)), timeout=20)
    charged = most = 0

    async def request(number):
        nonlocal charged, most
        id = f"{name}-{number}"
        granted = await counters.reserve(id, [Hold("a", 0, 500, 3), Hold("b", 0, 10**6, 1)], 60)
        if isinstance(granted, Granted):
            most = max(most, granted.levels[0].settled + granted.levels[0].reserved)
            await counters.forward([id])
            await counters.settle(id, [number % 4, 1])
            charged += number % 4

    for start in range(0, 200, 20):
        await asyncio.gather(*[request(number) for number in range(start, start + 20)])
    await counters.close()
    print(json.dumps([charged, most]))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_three_gateways_share_one_count(server, counters):
    command = [sys.executable, "-c", WORKER, str(server.port)]
    workers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "xyz"]
    results = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert all(most <= 500 for _, most in results)
    [level] = await counters.levels([("a", 0)])
    assert level == Level(sum(charged for charged, _ in results), 0, None)
    assert 400 <= level.settled <= 500  # sixty at once hold up to 180


async def test_leases_of_a_dead_gateway_expire_in_another(server, counters):
    gone = RedisCounters(RedisURL("127.0.0.1", server.port), timeout=TIMEOUT)
    await send(gone, "sent", [HOLD], 0.05)
    await gone.reserve("waiting", [Hold("b", 0, 10, 4)], 0.06)
    await send(gone, "unrecorded", [HOLD], 0.07)
    await gone.settle("unrecorded", [3], keep=True)
    await gone.close()
    await asyncio.sleep(0.1)
    assert await counters.expire() == [
        Expired("sent", True, ("a",), (4,)),
        Expired("waiting", False, ("b",), (0,)),
        Expired("unrecorded", True, ("a",), (3,), settled=True),
    ]
    assert await counters.levels([("a", 0), ("b", 0)]) == [Level(7, 0, None), Level(0, 0, None)]


# Written by the script before `extend` and `keep`: counts, a forwarded reservation, one charged at its expiry.
async def test_prefixes_keep_fleets_apart(server, counters):
    other = open_counters(f"{server.url}?prefix=other")
    await counters.reserve("r1", [HOLD], LEASE)
    assert await until_answered(lambda: other.levels([("a", 0)])) == [Level(0, 0, None)]
    await other.close()


# --- failures


async def test_a_killed_server_is_a_store_error_and_recovers(server, counters):
    await counters.reserve("r1", [HOLD], LEASE)
    server.stop()
    before = time.monotonic()
    await until_open(counters)
    for _ in range(100):
        with pytest.raises(StoreError):
            await counters.reserve("r2", [HOLD], LEASE)
    assert time.monotonic() - before < 0.9, "a dead server, or a breaker that is open, costs no waiting"
    server.start()
    assert isinstance(await until_answered(lambda: counters.reserve("r3", [HOLD], LEASE)), Granted)
    assert not counters._link.breaker.open


async def test_a_paused_server_fails_calls_in_time_and_recovers(server):
    counters = RedisCounters(RedisURL("127.0.0.1", server.port))  # with its default timeout
    await until_answered(lambda: counters.reserve("r1", [HOLD], LEASE))
    server.pause()
    for number in range(FAILURES):
        before = time.monotonic()
        with pytest.raises(StoreError, match="200 ms"):
            await counters.reserve(f"hung-{number}", [HOLD], LEASE)
        assert 0.1 < time.monotonic() - before < 1.0
    assert counters._link.breaker.open
    before = time.monotonic()
    for _ in range(200):
        with pytest.raises(NotSentError):
            await counters.reserve("r2", [HOLD], LEASE)
    assert time.monotonic() - before < 0.1
    await asyncio.sleep(1.0)
    with pytest.raises(StoreError, match="200 ms"):  # one call is let through to test the server
        await counters.levels([("a", 0)])
    with pytest.raises(NotSentError):
        await counters.levels([("a", 0)])
    server.resume()
    await until_answered(lambda: counters.settle("r1", [3]))
    await counters.void([f"hung-{number}" for number in range(FAILURES)])
    assert await until_answered(lambda: counters.levels([("a", 0)])) == [Level(3, 0, None)]
    await counters.close()


async def test_a_busy_loop_does_not_take_the_server_for_dead(server):
    """The loop stands still for longer than the timeout while a thousand answers arrive."""
    counters = RedisCounters(RedisURL("127.0.0.1", server.port), timeout=0.05, patience=60)
    hold = Hold("burst", 0, 1000, 1)
    calls = [asyncio.create_task(counters.reserve(f"r{number}", [hold], LEASE)) for number in range(1000)]
    while not all(call.done() for call in calls):
        time.sleep(0.1)  # this process is busy
        await asyncio.sleep(0)
    assert all(isinstance(call.result(), Granted) for call in calls)
    assert await counters.levels([("burst", 0)]) == [Level(0, 1000, None)]
    await counters.close()


async def test_a_call_waits_no_longer_than_its_patience(server):
    """A server that answers others is busy, and not dead: the breaker stays closed."""
    counters = RedisCounters(RedisURL("127.0.0.1", server.port), timeout=2.0, patience=0.3)
    await counters.levels([])
    server.pause()
    silence = counters._link._silence
    calls = [asyncio.create_task(counters.levels([])) for _ in range(FAILURES + 1)]
    await asyncio.sleep(0.05)
    silence.end()  # as if another call were answered
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(error) for error in found} == {"the store is busy with other calls"}
    assert not counters._link.breaker.open
    server.resume()
    assert await counters.levels([]) == []
    await counters.close()


async def test_an_extension_without_an_answer_is_released_by_the_settle(server, counters):
    await send(counters, "r1", [HOLD], LEASE)
    server.pause()
    with pytest.raises(StoreError):
        await counters.extend("r1", [HOLD])
    server.resume()
    assert await until_answered(lambda: counters.levels([("a", 0)])) == [Level(0, 8, None)]
    assert await counters.settle("r1", [5])
    assert await counters.levels([("a", 0)]) == [Level(5, 0, None)]


async def test_a_reserve_that_the_server_reads_after_the_void_holds_nothing(server, counters):
    """The void leaves on another connection, and a server that hung reads its connections in any order."""
    await counters.levels([])
    server.pause()
    task = asyncio.create_task(counters.reserve("r1", [HOLD], LEASE))
    await asyncio.sleep(0.01)
    task.cancel()  # the client disconnected
    with pytest.raises(asyncio.CancelledError):
        await task
    other = RedisCounters(RedisURL("127.0.0.1", server.port), timeout=TIMEOUT)
    server.resume()
    await until_answered(lambda: other.void(["r1"]))
    await until_answered(counters.expire)
    assert await counters.levels([("a", 0)]) == [Level(0, 0, None)]
    with pytest.raises(ValueError, match="r1"):
        await counters.reserve("r1", [HOLD], LEASE)
    assert not counters._link.breaker.open
    await other.close()


async def test_a_flush_under_load_is_reported_and_counting_goes_on(server, counters):
    stop = False
    errors = []

    async def load(name):
        number = 0
        while not stop:
            number += 1
            id = f"{name}-{number}"
            try:
                granted = await send(counters, id, [Hold("a", 0, 10**9, 3)], LEASE)
                assert isinstance(granted, Granted)
                await counters.settle(id, [2])
            except StoreError as error:
                errors.append(error)
                await asyncio.sleep(0.01)

    assert await counters.expire() == []
    workers = [asyncio.create_task(load(name)) for name in "abcdefgh"]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.cli, "flushall")
    await asyncio.to_thread(server.cli, "script", "flush")
    with pytest.raises(CountsLostError):
        await counters.expire()
    assert await counters.expire() == []  # reported once
    await asyncio.sleep(0.2)
    stop = True
    await asyncio.gather(*workers)
    assert len(errors) <= 1  # a machine that is busy
    await counters.expire()
    [level] = await counters.levels([("a", 0)])
    assert level.reserved == 0
    assert level.settled > 0


async def test_a_server_that_lost_its_scripts_gets_them_again(server, counters):
    await counters.reserve("r1", [HOLD], LEASE)
    server.cli("script", "flush")
    assert await asyncio.gather(*[counters.levels([("a", 0)]) for _ in range(20)]) == [[Level(0, 4, None)]] * 20


async def test_a_full_server_refuses_reservations(server, counters):
    await counters.reserve("r1", [HOLD], LEASE)
    server.cli("config", "set", "maxmemory", "1")
    with pytest.raises(StoreError, match="OutOfMemory"):
        await counters.reserve("r2", [HOLD], LEASE)
    server.cli("config", "set", "maxmemory", "0")
    assert await until_answered(lambda: counters.levels([("a", 0)])) == [Level(0, 4, None)]


async def test_a_replica_is_a_store_error(server, run):
    replica = run("--replicaof", f"127.0.0.1 {server.port}")
    counters = RedisCounters(RedisURL("127.0.0.1", replica.port), timeout=TIMEOUT)
    with pytest.raises(StoreError, match="ReadOnly"):
        await counters.reserve("r1", [HOLD], LEASE)
    replica.cli("replicaof", "no", "one")
    assert isinstance(await until_answered(lambda: counters.reserve("r1", [HOLD], LEASE)), Granted)
    await counters.close()


async def test_a_cluster_is_followed_to_the_node_of_our_keys(run):
    nodes = [run("--cluster-enabled", "yes") for _ in range(2)]
    slot = int(nodes[0].cli("cluster", "keyslot", "{extproc}"))
    nodes[0].cli("cluster", "addslotsrange", "0", str(slot - 1), str(slot + 1), "16383")
    nodes[1].cli("cluster", "addslots", str(slot))
    nodes[0].cli("cluster", "meet", "127.0.0.1", str(nodes[1].port))
    for node in nodes:
        deadline = time.monotonic() + 20
        while "cluster_state:ok" not in node.cli("cluster", "info"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    counters = RedisCounters(RedisURL("127.0.0.1", 1, others=[("127.0.0.1", nodes[0].port)]), timeout=2.0)
    await until_answered(lambda: counters.levels([]))  # the nodes may not agree yet
    granted = await asyncio.gather(*[counters.reserve(f"r{number}", [HOLD], LEASE) for number in range(5)])
    assert sum(isinstance(one, Granted) for one in granted) == 2
    assert await counters.levels([("a", 0)]) == [Level(0, 8, None)]
    assert nodes[1].cli("dbsize") != "0"
    await counters.close()


async def test_sentinels_lead_to_the_new_primary_with_its_counts(server, run):
    replica = run("--replicaof", f"127.0.0.1 {server.port}")
    watched = f"sentinel monitor budgets 127.0.0.1 {server.port} 1\nsentinel down-after-milliseconds budgets 200\n"
    watch = run(sentinel=watched + "requirepass secret\n")
    url = parse(f"redis://127.0.0.1:1,127.0.0.1:{watch.port}?sentinel=budgets&sentinel_password=env:SENTINEL_SECRET")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENTINEL_SECRET", "secret")
        counters = RedisCounters(url, timeout=TIMEOUT)
        assert isinstance(await until_answered(lambda: counters.reserve("r1", [HOLD], LEASE)), Granted)
        deadline = time.monotonic() + 20
        while replica.cli("dbsize") != server.cli("dbsize"):  # WAIT is about writes of its own connection alone
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert server.cli("dbsize") != "0"
        server.stop()
        assert await until_answered(lambda: counters.levels([("a", 0)]), 20) == [Level(0, 4, None)]
        assert replica.cli("role").startswith("master")
        await counters.close()


@pytest.mark.parametrize(
    ("policy", "maxmemory", "warned"),
    [
        ("allkeys-lru", "100mb", True),
        ("volatile-ttl", "100mb", True),
        ("allkeys-lru", "0", False),
        ("noeviction", "100mb", False),
    ],
)
async def test_a_server_that_may_evict_is_reported(run, caplog, policy, maxmemory, warned):
    server = run("--maxmemory-policy", policy, "--maxmemory", maxmemory)
    counters = RedisCounters(RedisURL("127.0.0.1", server.port), timeout=TIMEOUT)
    with caplog.at_level(logging.ERROR, "extproc"):
        await until_answered(lambda: counters.levels([]))
    assert any(policy in record.getMessage() for record in caplog.records) == warned
    await counters.close()


async def test_passwords_are_sent(run, monkeypatch, tmp_path, caplog):
    server = run("--requirepass", "canary-1")
    least = "~{extproc}* +@read +@write +@connection +@scripting +time +info"  # docs/budgets.md names it
    server.cli("-a", "canary-1", "acl", "setuser", "gateway", "on", ">canary-2", *least.split())
    monkeypatch.setenv("REDIS_PASSWORD", "canary-1")
    file = tmp_path / "password"
    for place, fails in (
        (RedisURL("127.0.0.1", server.port, password=Secret("env", "REDIS_PASSWORD")), False),
        (RedisURL("127.0.0.1", server.port, user="gateway", password=Secret("file", str(file))), True),
        (RedisURL("127.0.0.1", server.port), True),
    ):
        counters = RedisCounters(place, timeout=TIMEOUT)
        if fails:
            with pytest.raises(StoreError) as error:
                await counters.levels([])
            assert "canary" not in str(error.value)
        if place.user:
            file.write_text("canary-2\n")  # it is there now
        if place.password:
            assert await until_answered(lambda counters=counters: counters.levels([])) == []
            assert await counters.examine() == ""  # writes
            assert await counters.fullest("a", 0) == []
        await counters.close()
    assert "canary" not in caplog.text


async def test_tls_is_verified(tmp_path):
    RedisServer.need()
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make_certificate(key, certificate)
    server = RedisServer(tmp_path, "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    server._options += ("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no")
    server._options += ("--tls-port", str(server.port), "--port", "0")
    server.start()
    try:
        for ca, trusted in ((str(certificate), True), (None, False)):
            place = RedisURL("127.0.0.1", server.port, tls=True, ca=ca)
            counters = RedisCounters(place, timeout=2.0)
            if trusted:
                assert await counters.levels([("a", 0)]) == [Level(0, 0, None)]
            else:
                with pytest.raises(StoreError):
                    await counters.levels([])
            await counters.close()
    finally:
        server.stop()


def make_certificate(key_file, file):
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))


async def test_a_closed_store_is_a_store_error(counters):
    await counters.levels([])
    await counters.close()
    await counters.close()
    with pytest.raises(StoreError, match="closed"):
        await counters.reserve("r", [HOLD], LEASE)


# --- the breaker


def test_the_breaker_opens_and_closes():
    now = 0.0
    breaker = Breaker(lambda: now, NotSentError)
    for _ in range(FAILURES - 1):
        assert breaker.enter() is False
        assert breaker.failed(False) is False
    breaker.succeeded()
    for number in range(FAILURES + 3):  # calls that began before it opened
        assert breaker.failed(False) == (number == FAILURES - 1)
    for pause in (1, 2, 4, 5, 5):
        with pytest.raises(NotSentError):
            breaker.enter()
        now += pause
        assert breaker.enter() is True
        with pytest.raises(NotSentError):
            breaker.enter()
        breaker.failed(True)
    now += 5
    breaker.abandoned(breaker.enter())
    assert breaker.enter() is True
    breaker.succeeded()
    assert breaker.enter() is False


# --- urls


def test_urls_are_read():
    assert parse("redis://host") == RedisURL("host")
    assert parse("rediss://me@host:7000/3?password=env:PASSWORD&ca=/etc/ca.pem&prefix=blue") == RedisURL(
        "host", 7000, 3, tls=True, user="me", password=Secret("env", "PASSWORD"), ca="/etc/ca.pem", prefix="blue"
    )
    assert parse("redis://me@s1,[::1]:7/1?sentinel=main&password=env:P&sentinel_password=env:S") == RedisURL(
        *("s1", 26379, 1), user="me", password=Secret("env", "P"), others=(("::1", 7),), sentinel="main",
        sentinel_password=Secret("env", "S")
    )  # fmt: skip
    assert parse("redis://[::1]:7000?password=file:/run/secrets/redis").password == Secret("file", "/run/secrets/redis")


@pytest.mark.parametrize(
    "url",
    [
        "redis:",
        "redis://",
        "redis:host",
        "redis://:canary@host",
        "redis://user:canary@host",
        "redis://user@host",
        "redis://host?password=canary",
        "redis://host?password=",
        "redis://host?canary",
        "redis://host?canary=1",
        "redis://host:port",
        "redis://host:99999",
        "redis://host/canary",
        "redis://host/1/2",
        "redis://host?ca=/x",
        "redis://host?prefix={canary}",
        "redis://host?prefix=a&prefix=b",
        "redis://host#canary",
        "redis://[canary",
        "redis://a,,canary",
        "redis://a,b:canary",
        "redis://" + ",".join(["canary"] * 33),
        "redis://host?sentinel={canary}",
        "redis://host?sentinel=",
        "redis://host?sentinel_password=env:canary",
    ],
)
def test_a_refused_url_is_not_repeated(url):
    for call in (check_counters, open_counters):
        with pytest.raises(ValueError, match=r"redis|secret") as error:
            call(url)
        assert "canary" not in str(error.value)


def test_a_missing_client_library_is_reported(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"llm-extproc\[redis\]"):
        check_counters("redis://host")


def test_doubtful_urls_get_a_warning(monkeypatch):
    monkeypatch.setenv("SET", "x")
    assert list(doubt_counters("redis://redis.svc?password=env:SET")) == []
    assert list(doubt_counters("rediss://redis.example.com")) == []
    [unset] = doubt_counters("redis://redis.svc?password=env:UNSET")
    assert "env:UNSET" in unset
    [plain] = doubt_counters("redis://redis.example.com")
    assert "rediss" in plain


async def test_a_denied_window_ends_by_the_servers_clock(counters):
    await counters.reserve("r1", [Hold("a", -3, 10, 10)], LEASE)
    denied = await counters.reserve("r2", [Hold("a", -3, 10, 1)], LEASE)
    assert isinstance(denied, Denied)
    assert denied.remaining == 0
    assert 0 < denied.resets_in <= 92 * 86400


async def test_a_server_that_can_be_read_and_not_written_is_found_by_an_examination(server, run):
    counters = RedisCounters(RedisURL("127.0.0.1", server.port), timeout=5.0)
    assert await counters.examine() == ""
    server.cli("config", "set", "maxmemory", "1")
    assert await counters.levels([("a", 60)]) != []
    with pytest.raises(StoreError, match="OutOfMemoryError"):
        await counters.examine()
    server.cli("config", "set", "maxmemory", "0")
    server.cli("replicaof", "127.0.0.1", str(run().port))
    assert await counters.levels([("a", 60)]) != []
    with pytest.raises(StoreError, match="ReadOnlyError"):
        await counters.examine()
    server.cli("replicaof", "no", "one")
    assert await counters.examine() == ""
    server.cli("config", "set", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    assert "may evict budgets (maxmemory-policy allkeys-lru): set noeviction" in await counters.examine()
    await counters.close()


async def test_a_breaker_that_is_open_tells_the_cause(server, caplog):
    counters = RedisCounters(RedisURL("127.0.0.1", server.port), timeout=5.0)
    counters._link.breaker._clock = lambda: 0.0  # its pause lasts
    server.cli("config", "set", "requirepass", "other")
    for _ in range(FAILURES):
        with pytest.raises(StoreError, match="AuthenticationError"):
            await counters.levels([("a", 60)])
    assert "fails (cannot connect: AuthenticationError: " in caplog.text
    with pytest.raises(NotSentError, match=r"asked again in a moment \(cannot connect: AuthenticationError: "):
        await counters.levels([("a", 60)])
    await counters.close()
