"""A bucket of an S3-compatible store: objects are written once, and read.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from extproc.wire.outbound.client import AnswerError, ask_whole
from extproc.wire.outbound.sigv4 import AwsKey, signed

TIMEOUT = 300.0  # seconds for one request
MOST_READ = 16 << 20  # most bytes of an object that is read
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_EXISTS = (409, 412)  # 409: another conditional write of the object is in progress
_code = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>").search


class Bucket(NamedTuple):
    """A bucket. `endpoint` is `http(s)://host[:port]` of a store other than AWS; its paths begin with the bucket's
    name.
    """

    name: str
    region: str
    key: AwsKey
    endpoint: str = ""

    def create(self, object: str, data: bytes) -> bool:
        """Write a new object. False when the name exists; that object is unchanged.

        Raises OSError when the store cannot be reached or refuses.
        """
        status, answer = self._ask("PUT", object, data, {"if-none-match": "*"})
        if status in _EXISTS:
            return False
        if status != 200:
            raise self._refused(object, status, answer)
        return True

    def read(self, object: str) -> bytes | None:
        """An object of up to 16 MiB; None when the name does not exist. Raises OSError as `create` does."""
        status, answer = self._ask("GET", object, None, {})
        if status == 404:
            return None
        if status != 200 or len(answer) > MOST_READ:
            raise self._refused(object, status, answer)
        return answer

    def _ask(self, method: str, object: str, data: bytes | None, given: dict[str, str]) -> tuple[int, bytes]:
        base = self.endpoint or f"https://s3.{self.region}.amazonaws.com"
        path = f"/{self.name}/{quote(object, safe='/~')}"
        host, now = urlsplit(base).netloc, datetime.now(UTC)
        headers = signed(
            self.key, host, path, data or b"", region=self.region, service="s3", now=now, method=method, given=given
        )
        try:
            status, _, answer = ask_whole(base + path, data, headers, timeout=TIMEOUT, most=MOST_READ, method=method)
        except (OSError, AnswerError) as error:
            raise OSError(
                f"the bucket {self.name} at {host} does not answer: {error or type(error).__name__}"
            ) from None
        return status, answer

    def _refused(self, object: str, status: int, answer: bytes) -> OSError:
        found = _code(answer[:4096])
        reason = found[1].decode() if found else "no reason given"
        return OSError(f"the bucket {self.name} refuses {object}: status {status}, {reason}")


def check_name(name: str) -> None:
    """Raises ValueError for a text that cannot be a bucket's name."""
    if not _NAME.fullmatch(name):
        raise ValueError("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")
