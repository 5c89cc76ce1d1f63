"""The two models that the cache asks, in the place of the gateway."""

import pytest

from extproc.wire.outbound.service import Service
from tests.cache.similar.models import Models


@pytest.fixture
def models(monkeypatch):
    for name in ("ada", "bob", "own"):
        monkeypatch.setenv(f"KEY_{name}", f"sk-gw-{name}")
    found = Models()

    async def post(_self, path, body, headers, deadline):
        return await found.post(path, body, headers, deadline)

    monkeypatch.setattr(Service, "post", post)
    return found
