"""OpenAI's translations: sound in, text in English out. Requests and answers pass as they are.

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
