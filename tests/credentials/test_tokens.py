"""Tokens for calls of the processor itself."""

import asyncio
import time

import pytest

from extproc.upstream.credentials.oauth import OAuthToken, TokenError
from extproc.upstream.credentials.tokens import CloudToken
from extproc.upstream.providers import Credentials

SETTINGS = {"azure": {"tenant": "acme", "client_id": "app", "client_secret": "env:ENTRA_SECRET"}}


class Cloud:
    """Gives tokens that are good for an hour, or an error. `now` is moved by hand."""

    def __init__(self, monkeypatch):
        monkeypatch.setenv("ENTRA_SECRET", "secret")
        self.now, self.asked, self.error, self.release = 1000.0, 0, None, asyncio.Event()
        self.release.set()
        self.tokens = CloudToken(
            "guardrail g", Credentials.model_validate(SETTINGS), fetch=self.fetch, clock=lambda: self.now
        )

    async def fetch(self, credentials, secret, now):
        assert (credentials.azure.tenant, secret) == ("acme", "secret")
        self.asked += 1
        await self.release.wait()
        if self.error is not None:
            raise self.error
        return OAuthToken(f"token-{self.asked}", now + 3600)

    async def get(self, seconds=5.0):
        return await self.tokens.get(time.monotonic() + seconds)


@pytest.fixture
def cloud(monkeypatch):
    return Cloud(monkeypatch)


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_questions_at_the_same_time_share_one_token(cloud):
    assert await asyncio.gather(*(cloud.get() for _ in range(5))) == ["token-1"] * 5
    assert await cloud.get() == "token-1"
    assert cloud.asked == 1


async def test_a_new_token_is_requested_before_the_old_one_ends_and_nothing_waits_for_it(cloud):
    await cloud.get()
    cloud.now += 3600 - 60
    cloud.release.clear()
    assert await cloud.get() == "token-1"
    cloud.release.set()
    await settle()
    assert await cloud.get() == "token-2"
    assert cloud.asked == 2


async def test_the_old_token_serves_while_new_ones_are_refused_and_not_beyond_its_end(cloud):
    await cloud.get()
    cloud.now, cloud.error = cloud.now + 3500, TokenError("refused", "status 401")
    assert await cloud.get() == "token-1"
    await settle()
    assert await cloud.get() == "token-1"
    assert cloud.asked == 2, "a request that failed is not repeated at once"
    cloud.now += 200
    with pytest.raises(TokenError, match="status 401"):
        await cloud.get()
    cloud.error, cloud.now = None, cloud.now + 60
    assert await cloud.get() == "token-4"


async def test_a_failure_is_told_at_once_until_the_next_request(cloud, caplog):
    cloud.error = TokenError("refused", "status 401")
    for _ in range(3):
        with pytest.raises(TokenError):
            await cloud.get()
    assert cloud.asked == 1
    assert [record.message for record in caplog.records] == ["guardrail g: no new token (refused: status 401)"]


async def test_a_wait_ends_at_its_deadline_and_the_request_goes_on(cloud):
    cloud.release.clear()
    with pytest.raises(TokenError, match="timeout"):
        await cloud.get(0.01)
    cloud.release.set()
    assert await cloud.get() == "token-1"


async def test_a_secret_that_is_not_set(cloud, monkeypatch):
    monkeypatch.delenv("ENTRA_SECRET")
    with pytest.raises(TokenError, match="env:ENTRA_SECRET is not set"):
        await cloud.get()
    assert cloud.asked == 0
