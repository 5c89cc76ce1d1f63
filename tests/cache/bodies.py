"""Requests that the neutral form carries whole, with every field of it: the same one in three APIs."""

SCHEMA = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Oslo"}'}}
TOOL = {"name": "weather", "description": "Looks", "strict": True}

CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How is the weather?"}]},
        {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
    ],
    "max_tokens": 90,
    "temperature": 0.5,
    "top_p": 0.75,
    "tools": [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Looks", "parameters": SCHEMA, "strict": True},
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False,
}
MESSAGES = {
    "model": "m",
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "How is the weather?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"town": "Oslo"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "Rain."}]},
    ],
    "max_tokens": 90,
    "temperature": 0.5,
    "top_p": 0.75,
    "tools": [TOOL | {"input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
}
RESPONSES = {
    "model": "m",
    "store": False,
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "How is the weather?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"town":"Oslo"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "Rain."},
    ],
    "max_output_tokens": 90,
    "temperature": 0.5,
    "top_p": 0.75,
    "tools": [{"type": "function", "parameters": SCHEMA} | TOOL],
    "tool_choice": {"type": "function", "name": "weather"},
    "parallel_tool_calls": False,
}
# fields that not all of the three have
MORE_CHAT = {
    "stop": ["END"],
    "seed": 7,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "town", "description": "A town", "schema": SCHEMA, "strict": True},
    },
    "reasoning_effort": "low",
}
MORE_MESSAGES = {"top_k": 5, "stop_sequences": ["END"]}
MORE_RESPONSES = {
    "text": {"format": {"type": "json_schema", "name": "town", "description": "A", "schema": SCHEMA, "strict": True}},
    "reasoning": {"effort": "low"},
}

PATHS = {
    "openai_chat": "/v1/chat/completions",
    "anthropic_messages": "/v1/messages",
    "openai_responses": "/v1/responses",
}
SAME = {"openai_chat": CHAT, "anthropic_messages": MESSAGES, "openai_responses": RESPONSES}
FULL = {
    "openai_chat": CHAT | MORE_CHAT,
    "anthropic_messages": MESSAGES | MORE_MESSAGES,
    "openai_responses": RESPONSES | MORE_RESPONSES,
}
