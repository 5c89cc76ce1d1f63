"""Wrong tokens at the admin API: a limit by address, one log line a minute, a count."""

import logging
from collections import Counter

import httpx
import pytest

from extproc.operate.admin.api import admin_app
from extproc.operate.admin.failures import MOST_KNOWN, Failures
from tests.admin.conftest import TOKEN

WRONG, RIGHT = {"authorization": "Bearer wrong"}, {"authorization": f"Bearer {TOKEN}"}


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def world(sources):
    """`ask(address, headers)`: the status of an answer; with the clock and the counts of refusals."""
    clock, counts = Clock(), Counter()
    app = admin_app(sources, TOKEN, failures=Failures(10, lambda why: counts.update([why]), clock))

    async def ask(address, headers):
        transport = httpx.ASGITransport(app=app, client=(address, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.example") as http:
            return await http.get("/budgets", headers=headers)

    return ask, clock, counts


async def test_400_wrong_tokens_get_ten_401_and_then_429_with_a_time_to_wait(world, caplog):
    ask, clock, counts = world
    with caplog.at_level(logging.WARNING):
        found = [(await ask("192.0.2.1", WRONG)).status_code for _ in range(400)]
    assert found == [401] * 10 + [429] * 390
    answer = await ask("192.0.2.1", RIGHT)  # right or wrong: a guess is not told
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many")
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert TOKEN not in answer.text
    assert counts == {"invalid_token": 10, "too_many": 391}
    assert len(caplog.records) == 1
    clock.now += 60
    assert (await ask("192.0.2.1", RIGHT)).status_code == 200


async def test_failures_from_elsewhere_lock_nobody_out(world):
    ask, _, _ = world
    for _ in range(50):
        await ask("192.0.2.1", WRONG)
        await ask("2001:db8::1", WRONG)
    for address in ("192.0.2.2", "2001:db8:0:1::1", "127.0.0.1"):
        assert (await ask(address, RIGHT)).status_code == 200


async def test_a_client_has_a_whole_network_of_ipv6_and_one_address_of_ipv4(world):
    ask, _, _ = world
    found = [(await ask(f"2001:db8::{number:x}", WRONG)).status_code for number in range(12)]
    assert found == [401] * 10 + [429] * 2
    found = [(await ask(f"{prefix}192.0.2.7", WRONG)).status_code for prefix in ("", "::ffff:") * 6]
    assert found == [401] * 10 + [429] * 2


async def test_requests_without_a_token_and_right_ones_do_not_count(world):
    ask, _, counts = world
    for _ in range(30):
        assert (await ask("192.0.2.1", {})).status_code == 401
        assert (await ask("192.0.2.1", RIGHT)).status_code == 200
    for _ in range(9):
        await ask("192.0.2.1", WRONG)
    assert (await ask("192.0.2.1", RIGHT)).status_code == 200
    assert counts == {"invalid_token": 9}


async def test_one_line_a_minute_says_how_many_and_names_no_token(world, caplog):
    ask, clock, _ = world
    with caplog.at_level(logging.WARNING):
        for number in range(30):
            await ask(f"192.0.2.{number}", WRONG)
        clock.now += 60
        await ask("198.51.100.1", WRONG)
    assert [record.getMessage() for record in caplog.records] == [
        "the admin API refused 1 wrong tokens, the latest from 192.0.2.0",
        "the admin API refused 30 wrong tokens, the latest from 198.51.100.1",
    ]


def test_the_addresses_that_are_remembered_are_bounded():
    failures = Failures(1)
    for number in range(MOST_KNOWN + 100):
        failures.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures._known) == MOST_KNOWN
