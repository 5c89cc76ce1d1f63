"""Files of OpenAI's requests: their media types, and data URLs taken apart."""

from __future__ import annotations

from extproc.dialects._refusals import wrong

_MEDIA_TYPES = {
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}


def file_type(name: str) -> str:
    """Media type of a file without one."""
    return _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "application/pdf")


def data_url(url: str, where: str) -> tuple[str, str]:
    """Media type and base64 data of a data URL. Raises Refusal (400)."""
    head, comma, data = url[5:].partition(",")
    kind, _, encoding = head.rpartition(";")
    if not comma or encoding.strip() != "base64":
        raise wrong(f"'{where}': a data URL must hold base64.", where)
    return kind.partition(";")[0].strip().lower(), data
