"""`extproc guardrails try`: counts of findings in the texts of a file, of requests and of recorded prompts."""

import json

import pytest

MAIL = "ana@example.org"


def otlp(role, text):
    def string(value):
        return {"stringValue": value}

    def fields(**values):
        return {"kvlistValue": {"values": [{"key": key, "value": value} for key, value in values.items()]}}

    part = fields(type=string("text"), content=string(text))
    message = fields(role=string(role), parts={"arrayValue": {"values": [part]}})
    attribute = {"key": "gen_ai.input.messages", "value": {"arrayValue": {"values": [message]}}}
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": [attribute]}]}]}]}


@pytest.fixture
def texts(tmp_path):
    def write(*lines):
        path = tmp_path / "texts.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write


def test_findings_are_counted_by_kind_and_for_a_thousand_texts(run, texts):
    path = texts(
        {"text": f"write to {MAIL}", "kind": "mail", "label": 1},
        {"text": "nothing", "kind": "mail", "label": 1},
        {"text": "nothing", "kind": "chat", "label": 0},
        {"messages": [{"role": "system", "content": MAIL}, {"role": "user", "content": "Hello"}]},
        otlp("user", MAIL),
    )
    status, out, _ = run("guardrails", "try", path, "--kind", "pii", "--format", "json")
    assert status == 0
    assert json.loads(out)["pii"] == {
        "all": {"texts": 3, "found": 2, "per_1000": 666.7, "kinds": {"email": 2}},
        "harmless chat": {"texts": 1, "found": 0, "per_1000": 0.0, "kinds": {}},
        "to be found mail": {"texts": 2, "found": 1, "per_1000": 500.0, "kinds": {"email": 1}},
    }


def test_the_guardrails_of_the_settings_are_tried_and_no_text_is_printed(run, texts, tmp_path):
    settings = tmp_path / "gateway.yaml"
    settings.write_text(
        "providers: {a: {kind: vllm, base_url: 'http://127.0.0.1:8090/v1'}}\nmodels: {m: {provider: a}}\n"
        "guardrails:\n- {name: mails, kind: pii, types: [email]}\n- {name: injections, kind: prompt_injection}\n"
        "- {name: sizes, kind: limits, turns: 50}\n"
    )
    path = texts({"text": MAIL}, {"text": "Le conseil municipal a décidé hier soir de fermer la bibliothèque en été."})
    status, out, err = run("guardrails", "try", path, "-c", settings)
    assert (status, MAIL in out) == (0, False)
    assert "sizes: limits does not search text in this process; left out" in err
    assert [line.split() for line in out.splitlines() if line.startswith("all")] == [
        ["all", "2", "1", "500.0", "email", "1"],
        ["all", "2", "0", "0.0", "not", "judged:", "language", "1"],
    ]
    assert run("guardrails", "try", path, "-c", settings, "--only", "mails")[1].count("per 1,000") == 1


@pytest.mark.parametrize(
    ("line", "more", "said"),
    [
        ({"nothing": 1}, ("--kind", "pii"), "line 1: neither a text, nor a request, nor recorded prompts"),
        ({"text": "x"}, ("--kind", "none"), "--kind is one of"),
        ({"text": "x"}, ("--kind", "pii", "--only", "other"), "no guardrail has the name 'other'"),
    ],
)
def test_a_file_or_a_name_that_is_wrong_is_told(run, texts, line, more, said):
    status, out, err = run("guardrails", "try", texts(line), *more)
    assert (status, out) == (1, "")
    assert said in err
