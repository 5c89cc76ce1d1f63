"""OpenAI's translations: audio in, English text out. Requests and answers pass unchanged.

Source: https://developers.openai.com/api/reference/resources/audio/subresources/translations/methods/create
"""

from __future__ import annotations

from extproc.dialects import azure
from extproc.dialects.openai_transcriptions import OpenAITranscriptions
from extproc.words.api import Endpoints


class OpenAIAudioTranslations(OpenAITranscriptions):
    name = "openai_audio_translations"
    endpoints = Endpoints(
        paths={"/v1/audio/translations": "audio_translation"}, aliases=azure("/v1/audio/translations"), forms=True
    )


CLIENT = OpenAIAudioTranslations()
