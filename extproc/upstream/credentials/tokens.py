"""Tokens of clouds for calls of this process itself. `rotation` writes the tokens of providers for Envoy."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from extproc.upstream.credentials.oauth import LONGEST_PAUSE, OAuthToken, TokenError, fetch, pause_after
from extproc.upstream.providers import Credentials

log = logging.getLogger(__name__)


class CloudToken:
    """The token of one set of credentials: requested at first use, and again some minutes before it expires. `name` is
    for the log.
    """

    def __init__(
        self,
        name: str,
        credentials: Credentials,
        *,
        fetch: Callable[[Credentials, str, float], Awaitable[OAuthToken]] = fetch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._token: OAuthToken | None = None
        self._error = TokenError("unusable", "no token was requested yet")
        self._due = 0.0  # time of the next request
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    async def get(self, deadline: float) -> str:
        """The token. If there is none, waits for one up to `deadline` (seconds, monotonic). Raises TokenError."""
        if (self._task is None or self._task.done()) and self._clock() >= self._due:
            self._task = asyncio.create_task(self._refresh())
        if (token := self._valid()) is not None:
            return token
        if self._task is not None and not self._task.done():  # the request continues for other callers
            done, _ = await asyncio.wait({self._task}, timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                raise TokenError("timeout", "no token in time")
        if (token := self._valid()) is not None:
            return token
        raise self._error

    def _valid(self) -> str | None:
        return self._token.value if self._token is not None and self._clock() < self._token.expires else None

    async def _refresh(self) -> None:
        now = self._clock()
        self._due = now + LONGEST_PAUSE  # limits the rate of requests, even if the code below raises
        try:
            secret = self._credentials.read()
            if not secret:
                raise TokenError("unusable", f"{self._credentials.reference} is not set")
            self._token = token = await self._fetch(self._credentials, secret, now)
        except TokenError as error:
            self._failures, self._error = self._failures + 1, error
            self._due = self._clock() + pause_after(self._failures)
            log.warning("%s: no new token (%s)", self._name, error)
        else:
            self._failures = 0
            self._due = token.renewal(now)
