"""Upper bounds for tokens of images, files and audio in a request. Only their first bytes are read; they are not
decoded.

An image counts by the most expensive of these rules, because the serving target is not known yet:

- OpenAI: tiles of 512 px (85 + 170 each, at most eight), or patches of 32 px: up to 1,536 at 2.46 tokens, 10,000 at
  1.2, 30,000 where the size is kept. https://developers.openai.com/api/docs/guides/images-vision
- Anthropic: patches of 28 px, at most 4,784. https://platform.claude.com/docs/en/build-with-claude/vision
- Google: tiles of 768 px or less at 258, of an image scaled to 3072 px; Gemini 3: at most 2,240.
  https://ai.google.dev/gemini-api/docs/tokens
- Together: up to four tiles of 560 px at 1,601. https://docs.together.ai/docs/vision-overview
- Open models that keep the size: patches of 28 px, at most 16,384.

Up to 559 px a side, none is above one tile of Together's. Beyond that, none is above `_LARGE` or one token for each
patch of 28 px. The level of detail that a client asks for is ignored, as most models do.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable
from typing import Any

from extproc.words.dialect import Ask

MOST = 39_200
"""Most tokens of an image: 30,000 patches of 32 px, counted in patches of 28 px."""

_SMALL = 1601
_SMALL_SIDE = 559
_LARGE = 6708  # 26 tiles of 258 tokens: Google's for a very long image; Together's four tiles are 6,404
_PATCH = 28
_HEAD = 64  # characters of base64; in most formats they include the size
_DEPTHS = (1 << 12, 1 << 17)  # characters of base64: in JPEG and GIF the size is behind metadata
_NO_SIZE = frozenset((0xC4, 0xC8, 0xCC))  # JPEG markers between 0xC0 and 0xCF without a frame
_SLOWEST = 1000  # bytes a second of the slowest MP3; audio is at most 32 tokens a second
BYTES_OF_AUDIO = 31
"""Fewest bytes of an audio file for each token: 1,000 bytes and 32 tokens a second."""
_PLAIN_WAV = frozenset((1, 3, 6, 7))  # PCM, float, A-law, mu-law: every sample takes bytes
_TEXT = ("data:text/", "data:application/json")
_PACKED = ("JVBERi", "UEsD", "H4sI")  # base64 prefixes of %PDF-, ZIP (every Office document) and gzip


def add_image(ask: Ask, url: Any, name: str) -> None:
    """Count an image, given by URL. `name` is the field or type that refers to an image outside of the body."""
    if isinstance(url, str) and url.startswith("data:image/"):
        ask.add_image(url, url_tokens(url))
    else:
        ask.add_image_elsewhere(name, MOST)


def add_image_data(ask: Ask, data: str) -> None:
    """Count an image, given in base64."""
    ask.add_image(data, image_tokens(data))


def add_file(ask: Ask, data: Any, name: str, *, text: bool) -> None:
    """Count a file. `name` is its field or type, `data` its base64. With `text`, its tokens are known."""
    if not text:
        ask.add_unseen(name)
        ask.packed(data)


def add_audio(ask: Ask, data: Any, name: str) -> None:
    """Count audio, given in base64. `name` is its field or type."""
    ask.packed(data)
    if not (isinstance(data, str) and is_audio_of_its_size(data)):
        ask.add_unseen(name)


def image_tokens(data: str) -> int:
    """Most tokens of an image, given in base64."""
    size = image_size(data)
    if size is None:
        return MOST
    width, height = size
    if max(size) <= _SMALL_SIDE:
        return _SMALL
    return min(MOST, max(_LARGE, -(-width // _PATCH) * -(-height // _PATCH)))


def url_tokens(url: str) -> int:
    """Most tokens of an image, given as a data URL."""
    end = url.find(",", 0, 256) + 1
    return image_tokens(url[end:]) if url.endswith(";base64,", 0, end) else MOST


def image_size(data: str) -> tuple[int, int] | None:
    """Width and height in the header of a PNG, JPEG, GIF or WebP in base64; None without a size, and for base64 that
    decoders read differently.
    """
    try:
        head = binascii.a2b_base64(data[:_HEAD], strict_mode=True)
        if head.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
            width, height = struct.unpack_from(">II", head, 16)
        elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            width, height = _webp(head)
        elif head.startswith((b"GIF87a", b"GIF89a")):
            width, height = _behind_metadata(_gif, data)
        elif head.startswith(b"\xff\xd8"):
            width, height = _behind_metadata(_jpeg, data)
        else:
            return None
    except (ValueError, IndexError, struct.error):  # not base64, or cut short
        return None
    return (width, height) if width and height else None


def is_text(url: Any) -> bool:
    """True for the data URL of a text file, which has no more tokens than bytes. Packed files can have any number: a
    kilobyte of PDF holds a thousand pages.
    """
    if not isinstance(url, str):
        return False
    end = url.find(",", 0, 256) + 1
    return url.startswith(_TEXT) and end > 0 and not url.startswith(_PACKED, end)


def is_audio_of_its_size(data: str) -> bool:
    """True for the base64 of audio with no more tokens than bytes: MP3, and WAV without compression at a usual rate.

    Other formats hold hours of silence in a kilobyte.
    """
    try:
        head = binascii.a2b_base64(data[:_HEAD], strict_mode=True)
        if head.startswith(b"RIFF") and head[8:16] == b"WAVEfmt ":
            kind, _, rate, _, frame = struct.unpack_from("<HHIIH", head, 20)
            return kind in _PLAIN_WAV and frame > 0 and rate >= _SLOWEST
    except (ValueError, struct.error):
        return False
    return head.startswith(b"ID3") or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _webp(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no WebP")


def _behind_metadata(read: Callable[[bytes], tuple[int, int]], data: str) -> tuple[int, int]:
    near, deep = _DEPTHS
    try:
        return read(binascii.a2b_base64(data[:near], strict_mode=True))
    except (IndexError, struct.error):
        return read(binascii.a2b_base64(data[:deep], strict_mode=True))


def _gif(data: bytes) -> tuple[int, int]:
    """The larger of the screen and the first frame, because some decoders enlarge one to the other."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _colours(flags)
    while data[at] == 0x21:  # an extension, in blocks
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at] != 0x2C:
        raise ValueError("no frame")
    left, top, wide, high = struct.unpack_from("<HHHH", data, at + 1)
    return max(width, left + wide), max(height, top + high)


def _colours(flags: int) -> int:
    """Bytes of the colour table behind the header."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker in (0xD9, 0xDA):
            break
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    raise ValueError("no frame")
