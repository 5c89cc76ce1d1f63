"""Clients of the admin API, without a network."""

from __future__ import annotations

import httpx
import pytest
from schemathesis.pytest.plugin import pytest_pycollect_makeitem, pytest_pyfunc_call  # noqa: F401 - hooks of this folder

from extproc.operate.admin.api import admin_app
from tests.admin.fakes import FakeDesk, FakeSources, exchange, some

NOW = 1_795_000_000.0
TOKEN = "operator-token"
JSON = {"content-type": "application/json"}


def client(app, host="localhost:9091"):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest.fixture(scope="session")
def connect():
    """`connect(app, host)`: a client of the app."""
    return client


@pytest.fixture
def sources():
    return FakeSources(some(NOW, 90), NOW)


@pytest.fixture
def desk():
    return FakeDesk()


@pytest.fixture
async def admin(sources, desk):
    """A client of an API on loopback without a token."""
    async with client(admin_app(sources, None, desk)) as found:
        yield found


@pytest.fixture
def make():
    """One exchange of the fakes."""
    return exchange
