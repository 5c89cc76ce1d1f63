"""Checks every dialect against its protocols with mypy. This code never runs; a test requires each module here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.dialects import (
        anthropic_batches,
        anthropic_count_tokens,
        anthropic_files,
        anthropic_messages,
        aws_converse,
        aws_titan_embed,
        cohere_chat,
        cohere_embed,
        gemini_batches,
        gemini_count_tokens,
        gemini_embed_content,
        gemini_embeddings,
        gemini_files,
        gemini_generate_content,
        ocr,
        openai_audio_translations,
        openai_batches,
        openai_chat,
        openai_completions,
        openai_embeddings,
        openai_files,
        openai_images,
        openai_moderations,
        openai_responses,
        openai_responses_compact,
        openai_responses_input_tokens,
        openai_speech,
        openai_transcriptions,
        rerank,
        vertex_embeddings,
    )
    from extproc.words.api import ClientAPI, ProviderAPI

    CLIENTS: Sequence[ClientAPI] = [
        anthropic_batches.CLIENT,
        anthropic_count_tokens,
        anthropic_files.CLIENT,
        anthropic_messages,
        gemini_batches.CLIENT,
        gemini_count_tokens,
        gemini_embed_content.CLIENT,
        gemini_embeddings.CLIENT,
        gemini_files.CLIENT,
        gemini_generate_content,
        ocr.CLIENT,
        openai_audio_translations.CLIENT,
        openai_batches.CLIENT,
        openai_chat,
        openai_completions,
        openai_embeddings,
        openai_files.CLIENT,
        openai_images.CLIENT,
        openai_moderations.CLIENT,
        openai_responses,
        openai_responses_compact,
        openai_responses_input_tokens,
        openai_speech.CLIENT,
        openai_transcriptions.CLIENT,
        rerank.CLIENT,
    ]
    PROVIDERS: Sequence[ProviderAPI] = [
        anthropic_messages,
        aws_converse,
        aws_titan_embed,
        cohere_chat,
        cohere_embed,
        gemini_embeddings,
        gemini_generate_content,
        openai_chat,
        openai_embeddings,
        openai_responses,
        vertex_embeddings,
    ]
