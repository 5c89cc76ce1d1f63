"""Reports of a running processor, and the operators' desk: the data behind the admin API."""

from __future__ import annotations


class ReportError(Exception):
    """A question that cannot be answered. `message` is for people, `status` the answer's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
