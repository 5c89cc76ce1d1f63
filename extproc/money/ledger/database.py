"""Connections to a ledger's database: SQLite in a file or in memory, or PostgreSQL. It alone knows the drivers.

Rows are written through the driver itself. SQLAlchemy makes the SQL of reports and is imported by the first of them:
it takes 13 MB and a quarter of a second, and most processes answer no report.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extproc.money.ledger import LedgerError
from extproc.money.ledger.schema import migrate
from extproc.money.ledger.url import LedgerURL, Server
from extproc.stores.sqlite.files import identity, make_private

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

CONNECT_TIMEOUT = 5  # seconds
LOCK_TIMEOUT = 5.0  # seconds to wait for another process's transaction on the same file
READ_TIMEOUT = 60_000  # milliseconds of a report in PostgreSQL, at most
MAX_READS = 2  # reports at once: they are rare and heavy, and must not hold the writer up
READ_WAIT = 30.0  # seconds that further reports wait for their turn
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
        # Memory is one connection, which threads take in turn.
        self._one = threading.Lock() if url.path is None and url.server is None else None
        self._driver: Any = sqlite3 if url.server is None else importlib.import_module("psycopg")  # an extra
        self._connect = _sqlite(url.path) if url.server is None else _postgresql(self._driver, url.server)
        self._idle: list[Any] = []  # connections for writing
        self._reading: Engine | None = None
        self._errors: tuple[type[Exception], ...] = (self._driver.Error,)
        self.in_memory = self._one is not None
        self.dialect = "sqlite" if url.server is None else "postgresql"
        self.placeholder = "?" if url.server is None else "%s"
        self.refusals: tuple[type[Exception], ...] = (self._driver.DataError, self._driver.IntegrityError)

    def prepare(self) -> None:
        """Migrate the schema to this release's version, once; and again where the file was removed: rows written to a
        deleted file are lost. Raises LedgerError.
        """
        with self._preparing:
            if self._ready and self._file != _file(self._path):
                _log.error("the ledger's file was removed or replaced: rows go into the file at its path, or a new one")
                self._ready = False
                self.close()
            if not self._ready:
                with self._told(), self._begin() as cursor:
                    migrate(cursor, self.dialect)
                self._file = _file(self._path)
                self._ready = True

    @contextlib.contextmanager
    def write(self) -> Iterator[Any]:
        """A cursor (PEP 249) in a transaction that is committed at the end. Raises the driver's errors, and LedgerError
        as `prepare` does.
        """
        self.prepare()
        with self._begin() as cursor:
            yield cursor

    @contextlib.contextmanager
    def change(self) -> Iterator[Any]:
        """The same as `write`. Raises LedgerError only."""
        self.prepare()
        with self._told(), self._begin() as cursor:
            yield cursor

    @contextlib.contextmanager
    def look(self) -> Iterator[Any]:
        """A cursor (PEP 249) in a short transaction for reading, without SQLAlchemy. Raises LedgerError."""
        self.prepare()
        with self._told(), self._begin(write=False) as cursor:
            yield cursor

    @contextlib.contextmanager
    def alone(self) -> Iterator[Any]:
        """A connection (PEP 249) for long work, closed at the end; not for memory, which has one only. Raises
        LedgerError.
        """
        self.prepare()
        with self._told(), contextlib.closing(self._connect()) as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one instant. Raises LedgerError."""
        self.prepare()
        engine = self._engine()
        with self._turn(), self._told(), self._one or contextlib.nullcontext(), engine.connect() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:  # reports are few and long: more memory for hashes, no compiler
                connection.exec_driver_sql(
                    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL jit = off; "
                    f"SET LOCAL work_mem = '64MB'; SET LOCAL statement_timeout = {READ_TIMEOUT}"
                )
            yield connection

    def empty_log(self) -> None:
        """Have SQLite move its write-ahead log, which holds former contents of pages, into the file and empty it. A
        long report may prevent that. Raises LedgerError.
        """
        if self._path is not None:
            with self.alone() as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Give the connections back. The next use opens new ones; what was in memory is gone."""
        idle, self._idle = self._idle, []  # connections in use go back to the old list, which goes with them
        for connection in idle:
            connection.close()
        if self._reading is not None:
            self._reading.dispose()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._reads.acquire(timeout=READ_WAIT):
            raise LedgerError("too many reports at once")
        try:
            yield
        finally:
            self._reads.release()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The database's errors become LedgerErrors, whose text has no row and no address."""
        try:
            yield
        except self._errors as error:
            raise LedgerError(f"the ledger does not answer ({reason(error)})") from None

    @contextlib.contextmanager
    def _begin(self, *, write: bool = True) -> Iterator[Any]:
        """A transaction. A connection that cannot even be rolled back is not used again."""
        with self._one or contextlib.nullcontext():
            idle = self._idle
            try:
                connection = idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                cursor = connection.cursor()
                if self.dialect == "sqlite":  # IMMEDIATE: no other process writes between the reads and the writes here
                    cursor.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield cursor
                connection.commit()
            except BaseException as error:
                if _is_read_only(error):  # a connection stays so, also when the database, or another server, is not
                    connection.close()
                    with contextlib.suppress(IndexError):
                        while True:
                            idle.pop().close()
                    raise
                try:
                    connection.rollback()
                except self._driver.Error:
                    connection.close()
                else:
                    idle.append(connection)
                raise
            idle.append(connection)

    def _engine(self) -> Engine:
        with self._preparing:
            if self._reading is None:
                sqlalchemy, pool = importlib.import_module("sqlalchemy"), importlib.import_module("sqlalchemy.pool")
                make: Callable[..., Engine] = partial(sqlalchemy.create_engine, creator=self._connect)
                if self._one is not None:
                    self._reading = make("sqlite://", poolclass=pool.StaticPool)
                elif self.dialect == "sqlite":
                    self._reading = make("sqlite:///ledger")  # the creator knows the path
                else:  # a ping finds connections that a restart of the server left dead
                    size = {"pool_size": MAX_READS, "max_overflow": 0}
                    self._reading = make("postgresql+psycopg://", pool_pre_ping=True, **size)
                self._errors = (self._driver.Error, sqlalchemy.exc.SQLAlchemyError)
            return self._reading


def reason(error: BaseException) -> str:
    """The error's class names only: texts of these errors repeat parameters and addresses."""
    original = getattr(error, "orig", None) or error  # SQLAlchemy's errors hold the driver's
    code = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None)
    return f"{type(original).__name__} {code}" if code else type(original).__name__


def _is_read_only(error: BaseException) -> bool:
    """Whether PostgreSQL said that this session, or the server behind this connection, takes no changes."""
    return getattr(error, "sqlstate", None) == "25006"


def _file(path: str | None) -> tuple[int, int] | None:
    """Device and inode of the file at a path; None without one."""
    return None if path is None else identity(path)


def _sqlite(path: str | None) -> Callable[[], sqlite3.Connection]:
    """Opens connections; to memory always the same one."""
    if path is None:
        one = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        return lambda: one
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # the usage of consumers is private
    except OSError as error:
        raise LedgerError(f"cannot open {path}: {error.strerror}") from None

    def connect() -> sqlite3.Connection:
        with contextlib.suppress(OSError):  # the next line fails likewise, with the reason
            make_private(path)
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = ON")  # then the file has no bytes of a forgotten consumer either
            connection.execute("PRAGMA threads = 1")  # a second thread, to sort the groups of reports
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    return connect


def _use_wal(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:  # SQLite does not wait for a lock to change the journal mode
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _postgresql(driver: Any, server: Server) -> Callable[[], Any]:
    def connect() -> Any:
        return driver.connect(
            host=server.host,
            port=server.port,
            dbname=server.database,
            user=server.user,
            # read again: it may have been rotated
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
