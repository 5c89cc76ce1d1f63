"""Connections to a ledger's database: SQLite in a file or in memory, or PostgreSQL. It alone knows the drivers."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from extproc.ledger import LedgerError
from extproc.ledger.schema import migrate
from extproc.ledger.url import LedgerURL, Server

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
        self._engine = _postgresql(url.server) if url.server is not None else _sqlite(url.path)
        self.dialect = self._engine.dialect.name
        self.placeholder = "%s" if url.server is not None else "?"

    def prepare(self) -> None:
        """Migrate the schema to this release's version, once; and again where the file was removed: rows written to a
        deleted file are lost. Raises LedgerError.
        """
        with self._preparing:
            if self._ready and self._file != _file(self._path):
                _log.error("the ledger's file was removed or replaced: rows go into the file at its path, or a new one")
                self._ready = False
                self._engine.dispose()
            if not self._ready:
                with self._transaction(write=True) as connection:
                    migrate(connection)
                self._file = _file(self._path)
                self._ready = True

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end. Raises SQLAlchemyError, and LedgerError as `prepare` does."""
        self.prepare()
        with self._begin(write=True) as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one instant. Raises LedgerError."""
        self.prepare()
        with self._turn(), self._transaction(write=False) as connection:
            if self.dialect == "postgresql":  # reports are few and long: more memory for hashes, no compiler
                connection.exec_driver_sql(
                    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL jit = off; "
                    f"SET LOCAL work_mem = '64MB'; SET LOCAL statement_timeout = {READ_TIMEOUT}"
                )
            yield connection

    @contextlib.contextmanager
    def change(self) -> Iterator[Connection]:
        """The same as `write`. Raises LedgerError only."""
        self.prepare()
        with self._transaction(write=True) as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._reads.acquire(timeout=READ_WAIT):
            raise LedgerError("too many reports at once")
        try:
            yield
        finally:
            self._reads.release()

    @contextlib.contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:
        """The same as `_begin`; the database's errors become LedgerErrors, whose text has no row and no address."""
        try:
            with self._begin(write=write) as connection:
                yield connection
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise LedgerError(f"the ledger does not answer ({reason(error)})") from None

    @contextlib.contextmanager
    def _begin(self, *, write: bool) -> Iterator[Connection]:
        with self._one or contextlib.nullcontext(), self._engine.connect() as connection:
            connection.execution_options(ledger_write=write)
            with connection.begin():
                yield connection


def reason(error: BaseException) -> str:
    """The error's class names only: texts of these errors repeat parameters and addresses."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        original: Any = error.orig
        code = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None)
        return f"{type(original).__name__} {code}" if code else type(original).__name__
    return type(error).__name__


def _file(path: str | None) -> tuple[int, int] | None:
    """Device and inode of the file at a path; None without one."""
    if path is None:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116 - it is looked at before every batch
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _sqlite(path: str | None) -> Engine:
    if path is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # the usage of consumers is private
        except OSError as error:
            raise LedgerError(f"cannot open {path}: {error.strerror}") from None

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(path, timeout=LOCK_TIMEOUT, check_same_thread=False)

        engine = create_engine("sqlite:///ledger", creator=connect)  # the creator knows the path

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where `_begins` says
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA threads = 1")  # a second thread, to sort the groups of reports

    @event.listens_for(engine, "begin")
    def _begins(connection: Connection) -> None:
        # IMMEDIATE: no other process writes between the reads and the writes here.
        write = connection.get_execution_options().get("ledger_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


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


def _postgresql(server: Server) -> Engine:
    psycopg = importlib.import_module("psycopg")  # an extra

    def connect() -> Any:
        return psycopg.connect(
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

    # Two read, one writes, one deletes. A ping finds connections that a restart of the server left dead.
    return create_engine(
        "postgresql+psycopg://", creator=connect, pool_size=MAX_READS + 2, max_overflow=0, pool_pre_ping=True
    )
