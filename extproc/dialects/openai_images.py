"""OpenAI's images, made from a prompt or from other images. Requests and answers pass unchanged.

Sources: https://developers.openai.com/api/reference/resources/images/methods/generate, .../edit; tokens of an image:
https://developers.openai.com/api/docs/guides/image-generation#cost-and-latency
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from extproc.dialects import _media, azure
from extproc.dialects._passed import Passed, add_files, form_flag, form_integer, passed_fields
from extproc.dialects._usage import are_counts, told_cost
from extproc.dialects.openai_responses.usage import read_usage
from extproc.wire.framing.multipart import FormFile
from extproc.words.api import Endpoints
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint, Report
from extproc.words.exchange import Usage

_TOKENS = {"low": 512, "medium": 2048, "standard": 2048}
_MOST_TOKENS = 8192
"""Tokens held for one image, by quality. OpenAI's largest are 408, 1,584 and 6,240."""
_PARTIAL = 100  # tokens of a partial image
_MOST_IMAGES = 128
_MOST_FRAMES = 1000


class _Answer(msgspec.Struct):
    type: Any = None
    data: Any = None
    usage: Any = None
    error: Any = None


class OpenAIImages(Passed):
    name = "openai_images"
    shape = _Answer
    endpoints = Endpoints(
        paths={"/v1/images/generations": "image_generation", "/v1/images/edits": "image_edit"},
        aliases={**azure("/v1/images/generations"), **azure("/v1/images/edits")},
        forms=True,
    )
    fields = passed_fields("prompt", also=("stream", "n", "quality", "size", "partial_images", "frame_count"))
    text = "prompt"
    quiet = Passed.quiet | {
        *("b64_json", "url", "created", "created_at", "usage", "size", "quality", "background", "output_format"),
        "partial_image_index",
    }

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        ask = super().read(body, endpoint)
        ask.stream = form_flag(body, "stream")
        count = form_integer(body, "n", 1, _MOST_IMAGES) or 1
        count *= form_integer(body, "frame_count", 1, _MOST_FRAMES) or 1
        partial = form_integer(body, "partial_images", 0, _MOST_IMAGES) or 0
        quality = body.get("quality")
        each = _TOKENS.get(quality, _MOST_TOKENS) if isinstance(quality, str) else _MOST_TOKENS
        ask.answer_tokens = count * (each + partial * _PARTIAL)
        ask.units["images"] = count
        size = body.get("size")
        asked = {name: value for name, value in (("quality", quality), ("size", size)) if isinstance(value, str)}
        ask.unit_options = {**asked, "image": "/".join(asked.values())} if asked else {}
        add_files(ask, body)
        for name in ("image", "images", "mask"):  # fields of a JSON body
            given = body.get(name)
            for image in given if isinstance(given, list) else [given] if given is not None else ():
                if not isinstance(image, FormFile):
                    url = image.get("image_url") if isinstance(image, dict) else image
                    _media.add_image(ask, url, name)
        return ask

    def usage(self, said: Any) -> Usage | None:
        """Usage of an answer; all output is image unless the details differ. xAI reports the cost alone."""
        if not isinstance(said, dict):
            return None
        if not are_counts(said.get("input_tokens"), said.get("output_tokens")):
            cost = told_cost(said)
            return None if cost is None else Usage(cost=cost)
        if not isinstance(said.get("output_tokens_details"), dict):
            said = {**said, "output_tokens_details": {"image_tokens": said.get("output_tokens")}}
        return read_usage(said)

    def read_answer(self, answer: Any, report: Report) -> bool:
        if isinstance(answer.data, list):
            report.units["images"] = len(answer.data)
        elif isinstance(answer.type, str) and answer.type.endswith(".completed"):
            report.units["images"] = report.units.get("images", 0) + 1
        if answer.error is not None:
            report.error = "provider_error"
        if answer.usage is not None:
            report.add_usage(self.usage(answer.usage))
        return False


CLIENT = OpenAIImages()
