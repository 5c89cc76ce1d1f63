"""OpenAI's compaction of a long conversation into fewer items. It only passes through.

Source: https://developers.openai.com/api/reference/resources/responses/methods/compact
"""

from __future__ import annotations

from dataclasses import replace

from extproc.dialects import azure
from extproc.dialects import openai_responses as chat
from extproc.words.api import ClientTranslation, Endpoints, Stored

name, family = "openai_responses_compact", "compaction"
endpoints = Endpoints(paths={"/v1/responses/compact": "compact"}, aliases=azure("/v1/responses/compact"))
fields = chat.fields
answers = chat.answers
offers = replace(chat.offers, stored=Stored(objects=chat.offers.stored.objects))
translation: ClientTranslation | None = None
replies, texts, conversation, said = chat.replies, chat.texts, chat.conversation, chat.said
read, observe, observe_edges, smallest = chat.read, chat.observe, chat.observe_edges, chat.smallest
