"""OpenAI's classification of harmful text and images. Requests and answers pass unchanged.

Source: https://platform.openai.com/docs/api-reference/moderations
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.dialects import _media
from extproc.dialects._passed import Passed, passed_fields
from extproc.words.api import Endpoints
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint


class OpenAIModerations(Passed):
    name = "openai_moderations"
    endpoints = Endpoints(paths={"/v1/moderations": "moderation"})
    fields = passed_fields("input")
    text = "input"
    usual_model = "omni-moderation-latest"

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        ask = super().read(body, endpoint)
        for part in body["input"]:
            if isinstance(part, dict) and part.get("type") == "image_url":
                image = part.get("image_url")
                _media.add_image(ask, image.get("url") if isinstance(image, dict) else image, "image_url")
        return ask


CLIENT = OpenAIModerations()
