"""Requests of this process to providers, with the provider's address, headers and credential. For clients' requests
Envoy adds these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlencode

from extproc.upstream.credentials.rotation import read_secret
from extproc.upstream.providers import ProviderSettings
from extproc.wire.outbound.pool import AnswerError, ConnectionPool

TIMEOUT = 30.0
"""Seconds to wait for an answer."""
FILE_TIMEOUT = 600.0
"""Seconds to wait for a file."""
_MOST = 1 << 20
"""Most bytes of an answer that is not a file."""


class NotAskedError(Exception):
    """A provider cannot be asked now, or did not answer. The text has no secret."""


class TooLargeError(Exception):
    """The file has more bytes than the limit."""


class Asking:
    """GET requests to `providers`. Tokens of clouds are read from Envoy's files: in the directory `secrets`, named by
    `stem`.
    """

    def __init__(
        self, providers: Mapping[str, ProviderSettings], secrets: Path | None, stem: Callable[[str], str] = str
    ) -> None:
        self._providers = providers
        self._secrets = secrets
        self._stem = stem

    def able(self, name: str) -> bool:
        """True if this process can ask the provider: false if Envoy signs each request."""
        provider = self._providers.get(name)
        return provider is not None and (provider.provider.signed_for is None or provider.credential is not None)

    async def get(
        self, name: str, path: str, *, sink: Callable[[bytes], None] | None = None, most: int = _MOST
    ) -> tuple[int, bytes]:
        """The status and body of the answer at `path`, one of OpenAI's paths, which begin with `/v1`. The body of a
        file goes to `sink`, piece by piece, at most `most` bytes. Raises NotAskedError and TooLargeError.
        """
        provider = self._providers.get(name)
        if provider is None or not self.able(name):
            raise NotAskedError(f"provider {name} cannot be asked by this process")
        headers = {"accept": "*/*", **provider.provider.headers, **provider.headers}
        if provider.credential is not None:
            if (secret := await asyncio.to_thread(self._secret, name, provider)) is None:
                raise NotAskedError(f"provider {name} has no key now")
            headers[provider.credential.header] = provider.credential.prefix + secret
        query = urlencode(provider.query)
        target = provider.url.path.rstrip("/") + path.removeprefix("/v1") + (f"?{query}" if query else "")
        pool = ConnectionPool(provider.url.geturl(), ca=provider.tls_ca, most=most)
        taken = 0

        def take(piece: bytes) -> None:
            nonlocal taken
            taken += len(piece)
            if taken > most:
                raise TooLargeError
            sink(piece)  # type: ignore[misc]  # there is one

        try:
            async with asyncio.timeout(TIMEOUT if sink is None else FILE_TIMEOUT):
                status, _, body = await pool.ask(target, None, headers, "GET", sink=None if sink is None else take)
        except TimeoutError:
            raise NotAskedError(f"provider {name} did not answer in time") from None
        except (OSError, ValueError) as error:
            raise NotAskedError(f"provider {name} cannot be reached: {type(error).__name__}") from None
        except AnswerError as error:
            raise NotAskedError(f"provider {name}: {error}") from None
        finally:
            pool.close()
        return status, body

    def _secret(self, name: str, provider: ProviderSettings) -> str | None:
        if provider.credentials is None:
            return provider.read_secret()
        return (read_secret(self._secrets, self._stem(name)) if self._secrets is not None else "") or None
