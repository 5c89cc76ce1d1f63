"""Connections to a ledger's database: SQLite in a file or in memory, or PostgreSQL. It alone knows the drivers."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from extproc.money.ledger import LedgerError
from extproc.money.ledger.schema import migrate
from extproc.money.ledger.sql import POSTGRESQL, SQLITE, Cursor, DriverConnection
from extproc.money.ledger.url import LedgerURL, PostgresServer
from extproc.stores.sqlite.files import connect, identity, make_private

CONNECT_TIMEOUT = 5  # seconds to wait for a connection
LOCK_TIMEOUT = 5.0  # seconds to wait for another process's transaction on the same file
READ_TIMEOUT = 60_000  # longest report in PostgreSQL, milliseconds
MAX_READS = 2  # most reports at once: reports are rare and heavy, and must not delay the writer
READ_WAIT = 30.0  # seconds that a further report waits for its turn
_log = logging.getLogger(__name__)
_SILENCE = 15_000  # milliseconds without an answer of the peer's kernel after which a connection is given up


class Database:
    """Opens connections and, before the first of them is used, migrates the schema to the version of this release."""

    def __init__(self, url: LedgerURL) -> None:
        self._ready = False
        self._preparing = threading.Lock()
        self._path = url.path  # path of the SQLite file
        self._file: tuple[int, int] | None = None  # device and inode of the file at the time it was opened
        self._reads = threading.BoundedSemaphore(MAX_READS)
        # The database in memory has one connection, which threads use in turn.
        self._one = threading.Lock() if url.path is None and url.server is None else None
        self._driver: Any = sqlite3 if url.server is None else importlib.import_module("psycopg")  # an extra
        self.dialect = SQLITE if url.server is None else POSTGRESQL
        self._open = _sqlite(url.path) if url.server is None else _postgresql(self._driver, url.server)
        self._idle: list[DriverConnection] = []
        self.in_memory = self._one is not None
        self.refusals: tuple[type[Exception], ...] = (self._driver.DataError, self._driver.IntegrityError)

    def prepare(self) -> None:
        """Migrate the schema to this release's version, once, and again after the file was removed: rows written to a
        deleted file are lost. Raises LedgerError.
        """
        with self._preparing:
            if self._ready and self._file != _file(self._path):
                _log.error("the ledger's file was removed or replaced: rows go into the file at its path, or a new one")
                self._ready = False
                self.close()
            if not self._ready:
                with self._ledger_errors(), self._transaction() as cursor:
                    migrate(cursor)
                self._file = _file(self._path)
                self._ready = True

    @contextlib.contextmanager
    def write(self) -> Iterator[Cursor]:
        """A transaction for writing, committed at its end. Raises the driver's errors, and LedgerError as `prepare`
        does.
        """
        self.prepare()
        with self._transaction() as cursor:
            yield cursor

    @contextlib.contextmanager
    def change(self) -> Iterator[Cursor]:
        """A transaction for writing, as `write`. Raises LedgerError only."""
        self.prepare()
        with self._ledger_errors(), self._transaction() as cursor:
            yield cursor

    @contextlib.contextmanager
    def look(self) -> Iterator[Cursor]:
        """A short transaction for reading. Raises LedgerError."""
        self.prepare()
        with self._ledger_errors(), self._transaction(write=False) as cursor:
            yield cursor

    @contextlib.contextmanager
    def alone(self) -> Iterator[DriverConnection]:
        """A connection for long work, closed at its end; not for a database in memory, which has one connection. Raises
        LedgerError.
        """
        self.prepare()
        with self._ledger_errors(), contextlib.closing(self._connect()) as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Cursor]:
        """A transaction for a report, which reads the state of one instant. Raises LedgerError."""
        self.prepare()
        with self._one_of_few(), self._ledger_errors(), self._transaction(write=False, ping=True) as cursor:
            if self.dialect is POSTGRESQL:  # reports are few and long: more memory for hashes, no compiler
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cursor.execute("SET LOCAL jit = off")
                cursor.execute("SET LOCAL work_mem = '64MB'")
                cursor.execute(f"SET LOCAL statement_timeout = {READ_TIMEOUT}")
            yield cursor

    def empty_log(self) -> None:
        """Have SQLite move its write-ahead log, which holds former contents of pages, into the file and empty it. A
        long report may prevent that. Raises LedgerError.
        """
        if self._path is not None:
            with self.alone() as connection:
                connection.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Close the connections. The next use opens new ones; a database in memory is lost."""
        idle, self._idle = self._idle, []  # a connection in use returns to the old list, and is dropped with it
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _one_of_few(self) -> Iterator[None]:
        if not self._reads.acquire(timeout=READ_WAIT):
            raise LedgerError("too many reports at once")
        try:
            yield
        finally:
            self._reads.release()

    @contextlib.contextmanager
    def _ledger_errors(self) -> Iterator[None]:
        """Turn the driver's errors into LedgerErrors, whose text has no row and no address."""
        try:
            yield
        except self._driver.Error as error:
            raise LedgerError(f"the ledger does not answer ({reason(error)})") from None

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = True, ping: bool = False) -> Iterator[Cursor]:
        """A transaction. A connection that cannot even be rolled back is not used again."""
        with self._one or contextlib.nullcontext():
            idle = self._idle
            connection = self._take_idle(ping=ping) or self._connect()
            try:
                with connection.transaction(write=write) as cursor:
                    yield cursor
            except BaseException as error:
                if _is_read_only(error):  # the connection stays read-only, even if the database no longer is
                    connection.broken = True
                    with contextlib.suppress(IndexError):
                        while True:
                            idle.pop().close()
                raise
            finally:
                if connection.broken:
                    connection.close()
                else:
                    idle.append(connection)

    def _take_idle(self, *, ping: bool) -> DriverConnection | None:
        """An idle connection, or None. `ping` skips connections that a restart of the server left dead."""
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                try:
                    if ping:
                        with connection.transaction(write=False) as cursor:
                            cursor.execute("SELECT 1")
                except self._driver.Error:
                    connection.close()
                else:
                    return connection
        return None

    def _connect(self) -> DriverConnection:
        return DriverConnection(self._open(), self.dialect)


def reason(error: BaseException) -> str:
    """The names of the error's classes only: texts of these errors repeat parameters and addresses."""
    code = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {code}" if code else type(error).__name__


def _is_read_only(error: BaseException) -> bool:
    """True if PostgreSQL said that this session, or the server behind this connection, takes no changes."""
    return getattr(error, "sqlstate", None) == "25006"


def _file(path: str | None) -> tuple[int, int] | None:
    """Device and inode of the file at a path; None without one."""
    return None if path is None else identity(path)


def _sqlite(path: str | None) -> Callable[[], sqlite3.Connection]:
    """A function that opens connections; a database in memory has always the same one."""
    if path is None:
        one = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        return lambda: one
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # the usage of consumers is private
    except OSError as error:
        raise LedgerError(f"cannot open {path}: {error.strerror}") from None

    def open_file() -> sqlite3.Connection:
        with contextlib.suppress(OSError):  # the next line fails with the reason
            make_private(path)
        connection = connect(path, LOCK_TIMEOUT)
        connection.execute("PRAGMA secure_delete = ON")  # deletes the bytes of a forgotten consumer from the file
        connection.execute("PRAGMA threads = 1")  # allows a second thread that sorts groups of reports
        return connection

    return open_file


def _postgresql(driver: Any, server: PostgresServer) -> Callable[[], Any]:
    def connect() -> Any:
        return driver.connect(
            host=server.host,
            port=server.port,
            dbname=server.database,
            user=server.user,
            # Read the password again, because it may have been rotated.
            password=None if server.password is None else server.password.read(),
            sslmode=server.sslmode,
            sslrootcert=server.sslrootcert,
            connect_timeout=CONNECT_TIMEOUT,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=_SILENCE,
            client_encoding="utf8",
            application_name="extproc",
        )

    return connect
