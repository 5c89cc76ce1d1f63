"""Characters that people do not see in definitions."""

import pytest

from extproc.tools.mcp.unseen import invisible


@pytest.mark.parametrize(
    "hidden",
    [
        *("\u200b", "\u200c", "\u200d", "\u202e", "\U000e0041", "\ufeff", "\u2066", "\U000e0100", "\u00ad", "\u2060"),
        *("\u200d\u200d", "\U0001f469\u200d", "\u200d\U0001f469", "\U0001f3f4\U000e0069\U000e0067\U000e007f"),
        *("\U0001f600\ufe00\ufe0b\ufe04", "می\u200c\u200dخوام", "\U0001f3f4\U000e0067\U000e0062\U000e0065"),
    ],
)
def test_invisible_characters_are_found_anywhere(hidden):
    assert invisible({"description": f"Adds{hidden} numbers"})
    assert invisible({"description": f"Ad{hidden}ds numbers"})
    assert invisible({"inputSchema": {"properties": {f"a{hidden}b": {}}}})


@pytest.mark.parametrize(
    "text",
    [
        "Grüße, 日本語, 👍🏽 ☀️ \n",
        "👨‍👩‍👧‍👦 👩🏽‍💻 ❤️‍🔥 🏳️‍🌈 🧑‍🚀 🐻‍❄️ 🏃🏽‍♀️‍➡️",
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🏴󠁧󠁢󠁷󠁬󠁳󠁿",
        "می\u200cخواهم این فایل را بخوانم؛ نمی\u200cشود، کتاب\u200cها",  # Persian
        "क्\u200dष और र्\u200dय, क्\u200cष",  # Hindi
        "ශ්\u200dරී ලංකා, ന്\u200d, বাংলা র\u200d্যা",  # Sinhala, Malayalam, Bengali
        "۝١٢ ؀",  # signs that have a shape
    ],
)
def test_joined_emoji_and_scripts_that_need_joiners_can_be_seen(text):
    assert not invisible({"a": [text, 1, None, {"b": True}]})
