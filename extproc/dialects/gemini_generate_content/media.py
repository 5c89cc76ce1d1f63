"""Images, files and audio as parts of a request.

Source: https://ai.google.dev/gemini-api/docs/file-input-methods (inline data, Files API, Cloud Storage, external URLs)
and https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference#filedata
"""

from __future__ import annotations

from typing import Any

from extproc.words.errors import UNSUPPORTED_BY_TARGETS, Refusal
from extproc.words.messages import AudioPart, FilePart, ImagePart

FILES_API = "https://generativelanguage.googleapis.com/"
_YOUTUBE = ("https://www.youtube.com/", "https://youtube.com/", "https://m.youtube.com/", "https://youtu.be/")

_TYPES = {
    **{name: f"image/{name}" for name in ("png", "jpeg", "webp", "gif", "heic", "heif", "bmp", "avif")},
    **{name: f"text/{name}" for name in ("html", "css", "csv", "xml", "rtf")},
    **{name: f"video/{name}" for name in ("mp4", "mpeg", "webm", "wmv")},
    **{name: f"audio/{name}" for name in ("mp3", "wav", "flac", "ogg", "aac", "m4a", "aiff", "opus")},
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "json": "application/json",
    "txt": "text/plain",
    "md": "text/markdown",
    "htm": "text/html",
    "js": "text/javascript",
    "mov": "video/quicktime",
    "mpg": "video/mpeg",
    "avi": "video/x-msvideo",
    "3gp": "video/3gpp",
}


def media(part: ImagePart | FilePart | AudioPart) -> dict[str, Any]:
    """A request's part with the media. Raises Refusal for media that Google cannot reach."""
    if isinstance(part, AudioPart):
        return {"inlineData": {"mimeType": f"audio/{part.format or 'wav'}", "data": part.data}}
    is_image = isinstance(part, ImagePart)
    usual = "image/jpeg" if is_image else "application/pdf"  # default type, if neither name nor data show it
    kind = part.media_type
    if kind == "image/jpg":
        kind = "image/jpeg"
    if part.data:
        return {"inlineData": {"mimeType": kind or usual, "data": part.data}}
    uri = part.url or ("" if isinstance(part, ImagePart) else part.id)
    if uri.startswith("files/"):
        uri = f"{FILES_API}v1beta/{uri}"
    if not uri.startswith(("https://", "http://", "gs://")):
        what, where = ("image", "URL") if is_image else ("file", "id or URL")
        raise Refusal(
            UNSUPPORTED_BY_TARGETS,
            f"The {what} is at an {where} that Google cannot read. Send its data in base64 instead.",
            param="messages",
        )
    if not kind and not uri.startswith(FILES_API):  # the Files API knows its files' types
        kind = _type_of(uri) or usual
    return {"fileData": {"mimeType": kind, "fileUri": uri} if kind else {"fileUri": uri}}


def _type_of(uri: str) -> str:
    if uri.startswith(_YOUTUBE):
        return "video/mp4"
    path = uri.partition("?")[0].partition("#")[0]
    return _TYPES.get(path.rpartition("/")[2].rpartition(".")[2].lower(), "")
