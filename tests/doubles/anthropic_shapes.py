"""The shape of requests to Anthropic's Messages: fields, types, and which of them are required.

Sources: https://platform.claude.com/docs/en/api/messages/create, .../api/migration-2026-10-21; the official SDK
"""

from __future__ import annotations

import re
from functools import cache

from tests.doubles.shapes import (
    Check,
    an_array,
    an_object,
    anything,
    array,
    base64,
    boolean,
    either,
    integer,
    matching,
    number,
    one_of,
    record,
    string,
    tagged,
    text,
)

NEW = "2026-10-21"
"""The version of the API that changed the fields of requests. The previous one is 2023-06-01."""

_ID = matching(
    lambda each: bool(re.fullmatch(r"[a-zA-Z0-9_-]+", each)), "String should match pattern '^[a-zA-Z0-9_-]+$'"
)
_NAME = matching(
    lambda each: bool(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", each)),
    "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
)
_HTTPS = matching(lambda url: url.startswith("https://"), "Only HTTPS URLs are supported.")
_CACHE = record({"type!": one_of("ephemeral"), "ttl": one_of("5m", "1h")})
_MARK = {"type!": string, "cache_control?": _CACHE}
_SERVER_BLOCKS = (
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "container_upload",
)
_SERVER_TOOLS = (
    "bash_20250124",
    "code_execution_20250522",
    "code_execution_20250825",
    "code_execution_20260120",
    "code_execution_20260521",
    "memory_20250818",
    "text_editor_20250124",
    "text_editor_20250429",
    "text_editor_20250728",
    "tool_search_tool_bm25_20251119",
    "tool_search_tool_regex_20251119",
    "web_fetch_20250910",
    "web_fetch_20260209",
    "web_fetch_20260309",
    "web_fetch_20260318",
    "web_search_20250305",
    "web_search_20260209",
    "web_search_20260318",
)

_TEXT = record(_MARK | {"text!": string, "citations?": an_array})
_IMAGE = record(
    _MARK
    | {
        "source!": tagged(
            "type",
            {
                "base64": record(
                    {
                        "type!": string,
                        "media_type!": one_of("image/jpeg", "image/png", "image/gif", "image/webp"),
                        "data!": base64,
                    }
                ),
                "url": record({"type!": string, "url!": _HTTPS}),
                "file": record({"type!": string, "file_id!": text()}),
            },
        ),
        "transformations?": an_object,
    }
)
_DOCUMENT = record(
    _MARK
    | {
        "source!": tagged(
            "type",
            {
                "base64": record({"type!": string, "media_type!": one_of("application/pdf"), "data!": base64}),
                "text": record({"type!": string, "media_type!": one_of("text/plain"), "data!": text()}),
                "url": record({"type!": string, "url!": _HTTPS}),
                "file": record({"type!": string, "file_id!": text()}),
                "content": record({"type!": string, "content!": either(("string", string), ("array", an_array))}),
            },
        ),
        "title?": string,
        "context?": string,
        "citations?": record({"enabled": boolean}),
    }
)
_FOUND = record(
    _MARK | {"content!": array(_TEXT), "source!": string, "title!": string, "citations": record({"enabled": boolean})}
)
_GIVEN = {"text": _TEXT, "image": _IMAGE, "document": _DOCUMENT, "search_result": _FOUND}
_GIVEN_BY_TOOLS = tagged("type", _GIVEN | {"tool_reference": record(_MARK | {"tool_name!": string})})
_RESULT = record(
    _MARK
    | {
        "tool_use_id!": _ID,
        "content": either(("string", string), ("array", array(_GIVEN_BY_TOOLS))),
        "is_error": boolean,
    }
)
_BLOCK = tagged(
    "type",
    _GIVEN
    | {
        "thinking": record({"type!": string, "thinking!": string, "signature!": text()}),
        "redacted_thinking": record({"type!": string, "data!": text()}),
        "tool_use": record(_MARK | {"id!": _ID, "name!": text(1, 200), "input!": an_object, "caller": an_object}),
        "tool_result": _RESULT,
    }
    | {name: record({}, open=True) for name in _SERVER_BLOCKS},
)
_MESSAGE = tagged(
    "role",
    {
        "user": record({"role!": string, "content!": either(("string", string), ("array", array(_BLOCK)))}),
        "assistant": record({"role!": string, "content!": either(("string", string), ("array", array(_BLOCK)))}),
        "system": record({"role!": string, "content!": either(("string", string), ("array", array(_TEXT)))}),
    },
)
_TOOL = tagged(
    "type",
    {
        "custom": record(
            {
                "type?": string,
                "cache_control?": _CACHE,
                "name!": _NAME,
                "description": string,
                "input_schema!": record({"type!": one_of("object"), "properties?": an_object}, open=True),
                "strict": boolean,
                "input_examples": array(an_object),
                "defer_loading": boolean,
                "eager_input_streaming?": boolean,
                "allowed_callers": array(string),
            }
        )
    }
    | {name: record({"name!": text()}, open=True) for name in _SERVER_TOOLS},
    default="custom",
)
_DISPLAY = one_of("summarized", "omitted")
_ALONE = boolean  # disable_parallel_tool_use
_COUNTED = {
    "messages!": array(_MESSAGE, most=100_000),
    "system": either(("string", string), ("array", array(_TEXT))),
    "tools": array(_TOOL),
    "tool_choice": tagged(
        "type",
        {
            "auto": record({"type!": string, "disable_parallel_tool_use": _ALONE}),
            "any": record({"type!": string, "disable_parallel_tool_use": _ALONE}),
            "tool": record({"type!": string, "name!": text(), "disable_parallel_tool_use": _ALONE}),
            "none": record({"type!": string}),
        },
    ),
    "thinking": tagged(
        "type",
        {
            "enabled": record({"type!": string, "budget_tokens!": integer(1024), "display?": _DISPLAY}),
            "adaptive": record({"type!": string, "display?": _DISPLAY}),
            "between_tools": record({"type!": string}),
            "disabled": record({"type!": string}),
        },
    ),
    "output_config": record(
        {
            "effort?": one_of("low", "medium", "high", "xhigh", "max"),
            "format?": record({"type!": one_of("json_schema"), "schema!": an_object}),
        }
    ),
    "cache_control?": _CACHE,
    "speed?": one_of("standard", "fast"),
}
_ASKED = _COUNTED | {
    "max_tokens!": integer(0),
    "metadata": record({"user_id?": text(0, 512)}),
    "stop_sequences": array(string),
    "service_tier": one_of("auto", "standard_only"),
    "container?": anything,
    "diagnostics?": an_object,
    "inference_geo?": string,
    "user_profile_id": string,
}
_SAMPLING = {"temperature": number(0, 1), "top_p": number(0, 1), "top_k": integer(0)}
EXTRA = _SAMPLING | {name: _COUNTED[name] for name in ("thinking", "output_config")} | {"anthropic_beta": array(string)}
"""Fields that Converse passes on from additionalModelRequestFields."""

_MODEL = {"model!": text()}
_STREAM = {"stream": boolean}
_BETA = {"mcp_servers": array(an_object), "context_management?": an_object, "output_format?": an_object}
_THREAD = tagged(
    "type",
    {
        "create": record({"type!": string}),
        "continue": record({"type!": string, "previous_message_id!": text()}),
    },
)
THREADS = "message-threads-2026-08-12"
"""The beta of `thread`: anthropic-sdk-python/src/anthropic/types/anthropic_beta_param.py."""
_PLACES = {
    "api": _MODEL | _STREAM | _ASKED,
    "count": _MODEL | _COUNTED,
    "vertex": {"anthropic_version!": one_of("vertex-2023-10-16", NEW)} | _STREAM | _ASKED | _BETA,
    "vertex count": {"anthropic_version!": one_of("vertex-2023-10-16", NEW)} | _MODEL | _COUNTED | _BETA,
    "bedrock": {"anthropic_version!": one_of("bedrock-2023-05-31", NEW), "anthropic_beta": array(string)}
    | _ASKED
    | _BETA,
}


@cache
def request(place: str, version: object, *, beta: bool = False, threads: bool = False) -> Check:
    """The shape of requests for one model and version. The newest version has no sampling parameters."""
    sampling = {} if version == NEW or "count" in place else _SAMPLING
    return record(_PLACES[place] | sampling | (_BETA if beta else {}) | ({"thread?": _THREAD} if threads else {}))
