"""Conditions on what a request is."""

import pytest
from pydantic import TypeAdapter, ValidationError

from extproc.routing import matching
from extproc.routing.language import language
from extproc.routing.matching import MatchSettings, compiled, mismatch

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def sent(exchange, content="Hi", **fields):
    return exchange({"model": "v", "messages": [{"role": "user", "content": content}]} | fields)


@pytest.mark.parametrize(
    ("match", "content", "fields", "failed"),
    [
        ({"images": True}, [PICTURE], {}, None),
        ({"images": True}, "Hi", {}, ("images", "false")),
        ({"tools": False}, "Hi", {}, None),
        ({"tools": False}, "Hi", {"tools": [TOOL]}, ("tools", "true")),
        ({"tokens": "-100"}, "Hi", {}, None),
        ({"tokens": "100-"}, "Hi " * 200, {}, None),
        ({"tokens": "0-100"}, "Hi " * 200, {}, ("tokens", "165")),
        ({"complexity": "0.5-"}, "Translate: good morning", {}, ("complexity", "0.140")),
        ({"language": "de"}, "Bitte erkläre mir, was das ist und wie es geht.", {}, None),
        ({"language": "de", "tools": "false"}, "What is this, and how does it work?", {}, ("language", "en")),
        ({"team": "r*", "label.run": "x*"}, "Hi", {}, ("label.run", "")),
    ],
)
def test_a_request_matches_by_its_content(exchange, match, content, fields, failed):
    conditions = compiled(TypeAdapter(MatchSettings).validate_python(match))
    assert mismatch(conditions, sent(exchange, content, **fields)) == failed


@pytest.mark.parametrize(
    ("hours", "now", "matches"),
    [
        ("08:00-18:00", "08:00", True),
        ("08:00-18:00", "18:00", False),
        ("22:00-6:00", "23:59", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "12:00", False),
    ],
)
def test_a_time_of_day_is_within_hours_in_utc(exchange, monkeypatch, hours, now, matches):
    monkeypatch.setitem(matching.CONTENT, "time", lambda _exchange: now)
    assert (mismatch(compiled({"time": hours}), sent(exchange)) is None) is matches


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({"images": "some"}, "match.images is true or false"),
        ({"tokens": "many"}, "match.tokens is a range"),
        ({"tokens": "9-1"}, "match.tokens is a range"),
        ({"complexity": "0.5"}, "match.complexity is a range"),
        ({"time": "8 to 9"}, "match.time is a range of UTC times"),
        ({"time": "25:00-26:00"}, "match.time is a range of UTC times"),
        ({"weather": "rain"}, "'weather' is not one of consumer, team, images"),
    ],
)
def test_an_unreadable_condition_is_refused(match, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(MatchSettings).validate_python(match)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "What is the best way to write this letter for my boss?"),
        ("de", "Schreibe bitte einen Brief an die Nachbarn, und das nicht zu lang."),
        ("fr", "Est-ce que vous pouvez écrire une lettre pour les voisins ?"),
        ("es", "¿Cómo puedo escribir una carta para los vecinos del barrio?"),
        ("pt", "Como eu posso escrever uma carta para os vizinhos? Não sei."),
        ("it", "Come si scrive una lettera per i vicini della casa?"),
        ("nl", "Hoe schrijf ik een brief aan de buren van het huis?"),
        ("pl", "Jak napisać list do sąsiadów? Nie wiem, co to jest."),
        ("ja", "隣人に手紙を書いてください。"),
        ("zh", "请给邻居写一封信。"),
        ("ko", "이웃에게 편지를 써 주세요."),
        ("ru", "Напиши письмо соседям, пожалуйста."),
        ("uk", "Напиши лист сусідам, будь ласка, і поясни."),
        ("ar", "اكتب رسالة إلى الجيران من فضلك."),
        ("", "4711 0815"),
        ("", "Hi"),
        ("", ""),
    ],
)
def test_the_language_of_a_text_is_told_or_left_open(code, text):
    assert language(text) == code
