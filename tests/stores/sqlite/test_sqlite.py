"""Events of a store in a file: it is reopened, shared, locked, full, newer or damaged."""

import asyncio
import itertools
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from extproc.stores import MAX_NOTE, CountsLostError, Denied, Expired, Granted, Hold, Level, NotSentError, StoreError
from extproc.stores.sqlite import CHECKPOINT, MOST_PAGES, SCHEMA_VERSION, SqliteCounters
from extproc.wire.outbound.breaker import PAUSE

LEASE = 60.0
HOLD = Hold("a", 0, 10, 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "er" / "counters.db"


@pytest.fixture
async def counters(path):
    counters = SqliteCounters(path)
    yield counters
    await counters.close()


def start(script, *args):
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_counts_survive_a_restart(path):
    first = SqliteCounters(path)
    await first.reserve("r1", [HOLD], LEASE)
    await first.reserve("r2", [HOLD], LEASE)
    await first.settle("r1", [3])
    await first.close()

    second = SqliteCounters(path)
    assert await second.levels([("a", 0)]) == [Level(3, 4, None)]
    assert await second.reserve("r3", [HOLD], LEASE) == Denied(0, 3, None)
    assert await second.settle("r2", [5])
    assert not await second.settle("r1", [3])
    assert await second.levels([("a", 0)]) == [Level(8, 0, None)]
    await second.close()


WORKER = """
import asyncio, json, sys
from extproc.stores import Granted, Hold
from extproc.stores.sqlite import SqliteCounters

async def main(path, name):
    counters = SqliteCounters(path, timeout=20)
    charged = most = 0
    for number in range(200):
        id = f"{name}-{number}"
        granted = await counters.reserve(id, [Hold("a", 0, 500, 3), Hold("b", 0, 10**6, 1)], 60)
        if isinstance(granted, Granted):
            most = max(most, granted.levels[0].settled + granted.levels[0].reserved)
            await counters.forward([id])
            await counters.settle(id, [number % 4, 1])
            charged += number % 4
    await counters.close()
    print(json.dumps([charged, most]))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_share_one_file(path):
    workers = [start(WORKER, path, name) for name in range(4)]  # none of them finds the file
    results = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    assert all(most <= 500 for _, most in results)
    counters = SqliteCounters(path)
    [level] = await counters.levels([("a", 0)])
    assert level == Level(sum(charged for charged, _ in results), 0, None)
    assert 498 <= level.settled <= 500
    await counters.close()


KILLED = """
import asyncio, sys
from extproc.stores import Hold
from extproc.stores.sqlite import SqliteCounters

async def main(path):
    counters = SqliteCounters(path)
    for id in ("waiting", "sent", "done", "unrecorded"):
        await counters.reserve(id, [Hold("a", 0, 100, 4), Hold("slots", 0, 5, 1, slot=True)], 60)
    await counters.forward(["sent"])
    await counters.settle("done", [1, 1])
    await counters.settle("unrecorded", [2, 1], keep=True)
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_the_leases_of_a_killed_process_expire(path):
    worker = start(KILLED, path)
    assert worker.stdout.readline() == "ready\n"
    worker.send_signal(signal.SIGKILL)
    worker.communicate(timeout=10)

    now = itertools.chain([time.time()] * 2, itertools.repeat(time.time() + 61))
    counters = SqliteCounters(path, clock=lambda: next(now))
    assert await counters.levels([("a", 0), ("slots", 0)]) == [Level(3, 8, None), Level(0, 2, None)]
    assert await counters.expire() == []
    assert sorted(await counters.expire(), key=lambda expired: expired.id) == [
        Expired("sent", True, ("a", "slots"), (4, 0)),
        Expired("unrecorded", False, ("a", "slots"), (2, 0), settled=True),
        Expired("waiting", False, ("a", "slots"), (0, 0)),
    ]
    assert await counters.levels([("a", 0), ("slots", 0)]) == [Level(7, 0, None), Level(0, 0, None)]
    assert await counters.expire() == []
    await counters.close()


async def test_two_connections_share_a_board(path, counters):
    other = SqliteCounters(path)
    assert list(await counters.share("board", "a", b"from a", 60.0)) == []
    assert list(await other.share("board", "b", b"from b", 60.0)) == [b"from a"]
    assert list(await counters.share("board", "a", b"", 60.0)) == [b"from b"]
    assert list(await other.share("board", "b", b"from b", 60.0)) == []
    await other.close()


async def test_notes_survive_a_restart(path):
    first = SqliteCounters(path)
    await first.share("board", "a", b"from a", 60.0)
    await first.close()
    second = SqliteCounters(path)
    assert list(await second.share("board", "b", b"", 60.0)) == [b"from a"]
    await second.close()


async def test_a_locked_database_is_a_store_error_in_time(path, counters):
    await counters.reserve("r1", [HOLD], LEASE)
    await counters.share("board", "a", b"before", 60.0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for call in (
        lambda: counters.reserve("r2", [HOLD], LEASE),
        lambda: counters.forward(["r1"]),
        lambda: counters.settle("r1", [1]),
        counters.expire,
        lambda: counters.share("board", "a", b"after", 60.0),
    ):
        before = time.monotonic()
        with pytest.raises(StoreError, match="locked"):
            await call()
        assert 0.1 < time.monotonic() - before < 2
    assert await counters.levels([("a", 0)]) == [Level(0, 4, None)]  # readers do not wait
    assert counters.breaker.open
    before = time.monotonic()
    for _ in range(100):
        with pytest.raises(NotSentError):
            await counters.settle("r1", [1])
    assert time.monotonic() - before < 0.1
    other.execute("ROLLBACK")
    other.close()
    await asyncio.sleep(PAUSE)
    assert await counters.settle("r1", [1])
    assert await counters.levels([("a", 0)]) == [Level(1, 0, None)]
    assert list(await counters.share("board", "b", b"", 60.0)) == [b"before"]


async def test_a_locked_database_does_not_stop_the_loop(path, counters):
    """Calls that need the file wait; everything else goes on."""
    await counters.reserve("r1", [HOLD], LEASE)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    calls = [asyncio.create_task(counters.forward(["r1"])) for _ in range(50)]
    turns = 0
    while not all(call.done() for call in calls):
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100, "one turn of the loop for each call means that each of them blocked it"
    assert all(isinstance(call.exception(), StoreError) for call in calls)
    other.close()


async def test_a_short_lock_only_delays(path, counters):
    await counters.reserve("r1", [HOLD], LEASE)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    settle = asyncio.create_task(counters.settle("r1", [1]))
    await asyncio.sleep(0.02)
    assert not settle.done()
    other.close()
    assert await settle


async def test_a_new_folder_is_private_to_the_user(tmp_path):
    counters = SqliteCounters(tmp_path / "data" / "counters.db")
    await counters.close()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


async def test_the_file_is_private_to_the_user(path, counters):
    await counters.reserve("r1", [HOLD], LEASE)
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    for file in path.parent.iterdir():
        file.chmod(0o644)
    second = SqliteCounters(path)
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    await second.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_removed_file_is_reported_once_and_counting_goes_on(path, counters, tmp_path, replaced):
    await counters.reserve("r1", [HOLD], LEASE)
    if replaced:
        await SqliteCounters(tmp_path / "other.db").close()
        (tmp_path / "other.db").rename(path)
    else:
        for file in list(path.parent.iterdir()):
            file.unlink()
    with pytest.raises(CountsLostError):
        await counters.expire()
    assert await counters.expire() == []
    assert await counters.levels([("a", 0)]) == [Level(0, 0, None)]
    assert isinstance(await counters.reserve("r2", [HOLD], LEASE), Granted)
    second = SqliteCounters(path)
    assert await second.levels([("a", 0)]) == [Level(0, 4, None)]
    await second.close()


async def test_a_removed_file_that_cannot_be_made_again_refuses(path, counters):
    shutil.rmtree(path.parent)
    path.parent.touch()  # a file where the folder was
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot open"):
            await counters.expire()
    with pytest.raises(StoreError):
        await counters.reserve("r2", [HOLD], LEASE)
    path.parent.unlink()
    with pytest.raises(CountsLostError):
        await counters.expire()
    await asyncio.sleep(PAUSE if counters.breaker.open else 0)
    assert isinstance(await counters.reserve("r2", [HOLD], LEASE), Granted)


async def test_opening_waits_for_another_process_that_opens(path):
    path.parent.mkdir(parents=True)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.2, other.close)
    done.start()
    counters = SqliteCounters(path)
    assert isinstance(await counters.reserve("r1", [HOLD], LEASE), Granted)
    await counters.close()
    done.join()


async def test_the_timeout_is_an_argument(path, counters):
    impatient = SqliteCounters(path, timeout=0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    before = time.monotonic()
    with pytest.raises(StoreError):
        await impatient.reserve("r1", [HOLD], LEASE)
    assert time.monotonic() - before < 0.03
    other.close()
    await impatient.close()


async def test_a_full_disk_refuses_reservations(counters):
    await counters.reserve("r1", [HOLD], LEASE)
    [pages] = counters._db.execute("PRAGMA page_count").fetchone()
    counters._db.execute(f"PRAGMA max_page_count = {pages}")
    scopes = [Hold("x" * 900 + str(number), 0, 10, 1) for number in range(20)]
    with pytest.raises(StoreError, match="full"):
        await counters.reserve("r2", [HOLD, *scopes], LEASE)
    assert await counters.levels([("a", 0), (scopes[0].scope, 0)]) == [Level(0, 4, None), Level(0, 0, None)]
    assert await counters.settle("r1", [2])


async def test_a_full_disk_keeps_the_last_note(counters):
    await counters.share("board", "a", b"before", 60.0)
    [pages] = counters._db.execute("PRAGMA page_count").fetchone()
    counters._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        await counters.share("board", "a", b"x" * MAX_NOTE, 60.0)
    assert list(await counters.share("board", "b", b"", 60.0)) == [b"before"]


@pytest.fixture
def step(monkeypatch):
    """Adds a step to the schema, as the next release would."""

    def add(*statements):
        from extproc.stores.sqlite import schema

        monkeypatch.setattr(schema, "_STEPS", (*schema._STEPS, statements))
        monkeypatch.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)

    return add


def version(path):
    db = sqlite3.connect(path)
    [found] = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return found


async def test_an_older_file_is_migrated_once_and_keeps_its_counts(path, step):
    counters = SqliteCounters(path)
    await counters.reserve("r1", [Hold("a", 0, 10, 4)], 60.0)
    await counters.close()
    assert version(path) == SCHEMA_VERSION
    step("CREATE TABLE added (x)", "ALTER TABLE counts ADD COLUMN more REAL")
    for _ in range(2):
        counters = SqliteCounters(path)
        assert await counters.levels([("a", 0)]) == [Level(0, 4, None)]
        await counters.close()
    assert version(path) == SCHEMA_VERSION + 1


async def test_a_migration_that_fails_changes_nothing(path, step, monkeypatch):
    counters = SqliteCounters(path)
    await counters.reserve("r1", [Hold("a", 0, 10, 4)], 60.0)
    await counters.close()
    step("CREATE TABLE added (x)", "CREATE TABLE notes (x)")
    with pytest.raises(StoreError, match="notes"):
        SqliteCounters(path)
    monkeypatch.undo()
    assert version(path) == SCHEMA_VERSION
    counters = SqliteCounters(path)
    assert await counters.levels([("a", 0)]) == [Level(0, 4, None)]
    await counters.close()


MIGRATING = """
import asyncio, sys
from extproc.stores.sqlite import SqliteCounters

async def main(path, name):
    print("ready", flush=True)
    sys.stdin.readline()
    counters = SqliteCounters(path, timeout=20)
    await counters.share("board", name, name.encode(), 60)
    await counters.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_may_migrate_one_file_at_once(path):
    path.parent.mkdir(parents=True)
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("PRAGMA journal_mode = WAL")
    workers = [start(MIGRATING, path, name) for name in "abcd"]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 4
    old.execute("BEGIN IMMEDIATE")  # until all of them wait for it
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    time.sleep(0.2)
    old.execute("ROLLBACK")
    for worker in workers:
        worker.communicate(timeout=60)
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    counters = SqliteCounters(path)
    assert list(await counters.share("board", "e", b"", 60.0)) == [b"a", b"b", b"c", b"d"]
    await counters.close()
    old.close()


async def test_a_newer_schema_is_refused(path):
    await SqliteCounters(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StoreError, match="newer release"):
        SqliteCounters(path)


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "counters.db"
    path.write_bytes(b"these are not the pages you are looking for" * 100)
    with pytest.raises(StoreError, match="not a database"):
        SqliteCounters(path)


async def test_a_file_damaged_later_is_a_store_error(path):
    counters = SqliteCounters(path)
    for number in range(200):
        await counters.reserve(f"r{number}", [Hold(f"scope-{number}", 0, 10, 1)], LEASE)
    await counters.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    counters = SqliteCounters(path)
    with pytest.raises(StoreError, match="malformed"):
        await counters.reserve("r", [HOLD], LEASE)
    await counters.close()


async def test_an_unusable_path_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "counters.db"):
        with pytest.raises(StoreError, match="cannot open"):
            SqliteCounters(path)


async def test_a_closed_store_is_a_store_error(path):
    counters = SqliteCounters(path)
    await counters.close()
    await counters.close()
    for call in (
        counters.reserve("r", [HOLD], LEASE),
        counters.forward(["r"]),
        counters.settle("r", [1]),
        counters.share("board", "a", b"note", 60.0),
    ):
        with pytest.raises(StoreError):
            await call


async def test_ended_windows_are_purged(path):
    now = 0.0
    counters = SqliteCounters(path, clock=lambda: now)
    for minute in range(50):
        now = minute * 60.0
        for number in range(20):
            id = f"r{minute}-{number}"
            holds = [Hold(f"s{number}", window, 10**6, 1) for window in (60, 3600, -1, 0)]
            holds.append(Hold(f"slot-{number}", 0, 1, 1, slot=True))  # leaves nothing behind
            assert isinstance(await counters.reserve(id, holds, LEASE), Granted)
            await counters.settle(id, [1, 1, 1, 1, 1])
        await counters.expire()
    assert counters._db.execute("SELECT window, count(*) FROM counts GROUP BY window").fetchall() == [
        (-1, 20),
        (0, 20),
        (60, 40),
        (3600, 20),
    ]
    assert counters._db.execute("SELECT count(*) FROM holdings").fetchone() == (0,)
    plan = " ".join(row[3] for row in counters._db.execute("EXPLAIN QUERY PLAN SELECT min(window) FROM counts"))
    assert "SEARCH" in plan
    await counters.close()


async def test_short_lived_authors_leave_nothing_in_the_file(path):
    now = 0.0
    counters = SqliteCounters(path, clock=lambda: now)
    for number in range(2000):
        await counters.share(f"board-{number % 2}", f"author-{number}", b"x" * 1000, 20.0)
        assert counters._db.execute("SELECT count(*) <= 20 FROM notes").fetchone() == (1,)
        now += 1
    assert counters._db.execute("PRAGMA page_count").fetchone() < (50,)
    now += 20
    await counters.expire()
    assert counters._db.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    await counters.close()


async def test_the_log_moves_into_the_file_off_the_loop(path, counters):
    """A checkpoint syncs the disk. The next transaction begins the log anew, which its salt shows."""
    log = path.with_name("counters.db-wal")
    for number in range(400):
        await counters.reserve(f"r{number}", [Hold(f"scope-{number}", 0, 10, 1)], LEASE, facts=b"f" * 4000)
    assert CHECKPOINT < log.stat().st_size < 4096 * MOST_PAGES
    statements = []
    counters._db.set_trace_callback(statements.append)
    salt = log.read_bytes()[16:24]
    assert await counters.expire() == []
    await counters.settle("r0", [1])
    assert not [statement for statement in statements if "checkpoint" in statement]
    assert log.read_bytes()[16:24] != salt
    assert log.stat().st_size <= CHECKPOINT  # an idle gateway does not move it again every second


async def test_a_file_that_can_be_read_and_not_written_is_found_by_an_examination(tmp_path):
    counters = SqliteCounters(tmp_path / "counters.db")
    counters._db.execute("PRAGMA query_only = ON")  # as on a file system that became read only
    assert await counters.levels([("a", 60)]) != []
    with pytest.raises(StoreError, match="readonly"):
        await counters.examine()
    await counters.close()
