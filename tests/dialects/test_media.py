"""Upper bounds of the tokens of images, compared with the providers' documentation; and invalid image headers."""

import math
import struct
import zlib
from base64 import b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.dialects import _media as media
from extproc.money.budgets.bounds import dearest


def encoded(data):
    return b64encode(data).decode()


def png(width, height):
    return encoded(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0) + bytes(40))


def gif(width, height, frame=None, extension=b""):
    left, top, wide, high = frame or (0, 0, width, height)
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)  # two colours
    return encoded(b"GIF89a" + screen + extension + b"," + struct.pack("<HHHHB", left, top, wide, high, 0) + bytes(30))


def jpeg(width, height, *before):
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in before)
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC0, 17, 8, height, width, 3) + bytes(9)
    return encoded(b"\xff\xd8" + segments + frame + bytes(30))


def webp(kind, width, height):
    if kind == b"VP8X":
        data = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        data = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little")
    else:
        data = bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return encoded(b"RIFF" + bytes(4) + b"WEBP" + kind + bytes(4) + data + bytes(40))


SIZES = st.tuples(st.integers(1, 16_383), st.integers(1, 16_383))
WRITERS = {
    "png": png,
    "gif": gif,
    "jpeg": jpeg,
    "webp": lambda width, height: webp(b"VP8 ", width, height),
    "webp lossless": lambda width, height: webp(b"VP8L", width, height),
    "webp extended": lambda width, height: webp(b"VP8X", width, height),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@given(size=SIZES)
def test_the_size_is_read_from_the_header(write, size):
    assert media.image_size(write(*size)) == size


def test_the_size_of_a_jpeg_follows_its_metadata():
    metadata = [(0xE1, bytes(60_000)), (0xE2, bytes(3000)), (0xC4, bytes(30))]
    assert media.image_size(jpeg(4032, 3024, *metadata)) == (4032, 3024)
    thumbnail = (0xE1, b"Exif\0\0\xff\xd8\xff\xc0\0\x11\x08\0\x10\0\x10")
    assert media.image_size(jpeg(4032, 3024, thumbnail)) == (4032, 3024)
    assert media.image_size(jpeg(9, 9, *[(0xE1, bytes(60_000))] * 3)) is None  # beyond the bytes that are read


def test_the_size_of_a_gif_is_that_of_its_first_frame():
    comment = b"\x21\xfe\x05hello\0"
    assert media.image_size(gif(1, 1, frame=(10, 20, 3000, 2000), extension=comment)) == (3010, 2020)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "A",
        "====",
        "AAAA",
        png(0, 5),
        png(5, 5)[:20],
        "\n" + png(5, 5),
        png(5, 5)[:8] + "\n" + png(5, 5)[8:],  # some decoders skip white space, some do not
        png(5, 5).replace("/", "_").replace("+", "-").replace("A", "-", 1),
        jpeg(0, 0),
        encoded(b"\xff\xd8\xff\xda" + bytes(50)),
        encoded(b"\xff\xd8\xff\xe0\0\0" + bytes(50)),
        encoded(b"\xff\xd8" + b"\xff" * 90),
        encoded(b"\xff\xd8" + b"\xff\xe0\0\2" * 30_000),
        encoded(b"GIF89a" + bytes(3)),
        encoded(b"GIF89a\5\0\5\0\0\0\0" + b"\x21\xff\x01" * 20_000),
        encoded(b"RIFF....WEBPVP8L" + bytes(40)),
        encoded(b"RIFF....WEBPVP9 " + bytes(40)),
        encoded(b"BM" + bytes(60)),
        encoded(b"\0\0\0\x1cftypheic" + bytes(60)),
        encoded(b"%PDF-1.7" + bytes(60)),
        "é" * 100,
        "\ud800",
    ],
)
def test_an_unknown_size_counts_as_the_largest(data):
    assert media.image_size(data) is None
    assert media.image_tokens(data) == media.MOST
    assert media.url_tokens(f"data:image/png;base64,{data}") == media.MOST


HEADERS = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"RIFF....WEBPVP8X", b""]


@given(head=st.sampled_from(HEADERS), rest=st.binary(max_size=300), cut=st.integers(0, 3))
def test_any_header_is_read(head, rest, cut):
    data = encoded(head + rest)
    tokens = media.image_tokens(data[: len(data) - cut])
    assert 1601 <= tokens <= media.MOST


@given(url=st.text(max_size=80) | st.text(max_size=80).map("data:image/png;base64,{}".format))
def test_any_url_is_read(url):
    assert 1601 <= media.url_tokens(url) <= media.MOST
    assert media.is_text(url) in (True, False)
    assert media.is_audio_of_its_size(url) in (True, False)


def test_data_urls_are_read():
    assert media.url_tokens("data:image/png;base64," + png(100, 100)) == 1601
    assert media.url_tokens("data:image/png;charset=x;base64," + png(3000, 3000)) == 108 * 108
    for url in ("data:image/png," + png(9, 9), "data:image/svg+xml,<svg/>", "data:,", "data:" + "x" * 300 + ";base64,"):
        assert media.url_tokens(url) == media.MOST


# --- the providers' documentation


def fitted(width, height, most):
    """Scaled down until the longer side is `most`."""
    scale = min(1, most / max(width, height))
    return width * scale, height * scale


def tiles(width, height, base=85, each=170):
    width, height = fitted(width, height, 2048)
    scale = 768 / min(width, height)  # scaled up, too: the more expensive reading
    if max(width, height) * scale > 2048:
        scale = min(1.0, scale)
    return base + each * math.ceil(width * scale / 512 - 1e-9) * math.ceil(height * scale / 512 - 1e-9)


def patches(width, height, size, most, factor):
    count = math.ceil(width / size) * math.ceil(height / size)
    return min(count, most) * factor


def google(width, height):
    if max(width, height) <= 384:
        return 258
    width, height = fitted(width, height, 3072)
    unit = min(768, max(256, math.floor(min(width, height) / 1.5)))
    return 258 * math.ceil(width / unit) * math.ceil(height / unit)


def together(width, height):
    return 1601 * (1 + (width > 559)) * (1 + (height > 559))


PUBLISHED = {
    "gpt-4o": tiles,
    "gpt-4.1-nano": lambda width, height: patches(width, height, 32, 1536, 2.46),
    "gpt-5.5": lambda width, height: patches(width, height, 32, 10_000, 1.2),
    "gpt-5.6": lambda width, height: patches(width, height, 32, 30_000, 1),
    "claude": lambda width, height: patches(width, height, 28, 4784, 1),
    "claude before": lambda width, height: min(1600, width * height / 750),
    "gemini-2.5": google,
    "gemini-3": lambda _width, _height: 1120,
    "llama-4 at together": together,
    "qwen": lambda width, height: patches(width, height, 28, 16_384, 1),
}


@pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED)
@given(size=SIZES | st.tuples(st.integers(1, 4000), st.integers(1, 700)))
@example((559, 559))
@example((560, 560))
@example((3072, 385))
@example((5508, 460))
@example((1, 16_383))
@example((5536, 5536))
def test_no_documented_count_exceeds_the_bound(published, size):
    for width, height in (size, size[::-1]):
        assert published(width, height) <= media.image_tokens(png(width, height))


@given(size=SIZES)
def test_gpt_4o_mini_has_a_higher_bound_of_its_own(size):
    assert tiles(*size, base=2833, each=5667) <= dearest(1, media.image_tokens(png(*size)), ["gpt-4o-mini"])


def test_the_bound_is_that_of_the_most_expensive_target():
    assert dearest(2, 3202, ["gpt-4o", "claude-sonnet-5"]) == 3202
    assert dearest(2, 3202, ["gpt-4o", "gpt-4o-mini-2024-07-18"]) == 2 * 48_169
    assert dearest(2, 200_000, ["openai/gpt-4o-mini"]) == 200_000
    assert dearest(0, 0, ["gpt-4o-mini"]) == 0


def test_examples_of_the_documentation_are_within_the_bound():
    assert tiles(1024, 1024) == 765
    assert tiles(2048, 4096) == 1105
    assert google(960, 540) == 6 * 258
    assert patches(1092, 1092, 28, 4784, 1) == 1521


# --- files and audio


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("data:text/plain;base64,SGVsbG8=", True),
        ("data:text/csv,a%2Cb", True),
        ("data:application/json;base64,e30=", True),
        ("data:application/pdf;base64,JVBERi0xLjc=", False),
        ("data:text/plain;base64," + encoded(b"%PDF-1.7"), False),
        ("data:text/plain;base64," + encoded(b"PK\x03\x04"), False),
        ("data:text/plain;base64," + encoded(zlib.compress(b"x", wbits=31)), False),
        ("data:text/plain", False),
        ("SGVsbG8=", False),
        ("https://example.com/a.txt", False),
        ("", False),
    ],
)
def test_text_has_at_most_as_many_tokens_as_bytes(url, text):
    assert media.is_text(url) is text


def wav(rate, kind=1, frame=2):
    return encoded(
        b"RIFF" + bytes(4) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, kind, 1, rate, 0, frame, 16) + bytes(9)
    )


@pytest.mark.parametrize(
    ("data", "of_its_size"),
    [
        (wav(16_000), True),
        (wav(8000, kind=7, frame=1), True),
        (wav(1), False),  # one second in two bytes
        (wav(16_000, kind=0x11), False),  # ADPCM
        (wav(16_000, frame=0), False),
        (encoded(b"ID3\4" + bytes(60)), True),
        (encoded(b"\xff\xfb\x90\x64" + bytes(60)), True),
        (encoded(b"fLaC" + bytes(60)), False),
        (encoded(b"OggS" + bytes(60)), False),
        ("", False),
        ("AAA", False),
        ("é", False),
    ],
)
def test_audio_is_bounded_by_its_size(data, of_its_size):
    assert media.is_audio_of_its_size(data) is of_its_size
