"""The rooms and their order in docs/architecture.md, compared with the imports."""

import ast
import re
import sys
from functools import cache
from itertools import groupby
from pathlib import Path

import extproc
from extproc import dialects, guardrails
from extproc.routing import strategies
from extproc.upstream import providers

PACKAGE = Path(extproc.__file__).parent
ROOT = PACKAGE.parent
TESTS = Path(__file__).parent

MAP = re.findall(
    r"^    (?:(\w+)/)?(\w+)  +\S",
    (ROOT / "docs/architecture.md").read_text().partition("## Rooms")[2].partition("\n## ")[0],
    re.MULTILINE,
)
"""The map of rooms in docs/architecture.md, lowest first: the wing, empty for a wing that is one room, and the room."""
WINGS = {wing or room: [name for other, name in MAP if wing and other == wing] for wing, room in MAP}
"""The rooms of each wing; none for a wing that is one room."""
ROOMS = [room for _, room in MAP]
RANKS = {name: rank for rank, name in enumerate(ROOMS)}
LOOSE = {"gateway", "attempt", "services", "pipeline", "admission", "parsing", "forward", "response"}
"""Modules of the wing `exchange` that are rooms by themselves: the path of a request."""

# Third-party modules that do input and output, or speak a protocol, and the rooms that may import them.
RESERVED = {
    "grpc": {"outbound/unary.py", "transport/grpcio_server.py", "transport/server_tls.py"},
    "hpack": {"transport/headers.py"},
    "asyncio": {
        "accounting",
        "admin",
        "admission.py",
        "attempt.py",
        "budgets",
        "cache",
        "cli",
        "credentials",
        "endpoints",
        "guardrails/_audits.py",
        "guardrails/_input.py",
        "guardrails/_remote.py",
        "guardrails/_threads.py",
        "mcp",
        "sign_in",
        "mock",
        "outbound",
        "parsing.py",
        "questions",
        "reports",
        "routing/pools/placing.py",
        "routing/shadow.py",
        "server",
        "stores",
        "texts/stages.py",
        "telemetry/outbox.py",
        "transport/grpcio_server.py",
        "transport/native.py",
    },
    "socket": {"admin", "cli", "mock", "outbound", "transport/native.py", "transport/unix_socket.py"},
    "ssl": {"outbound"},
    "sqlite3": {"cache", "ledger", "stores"},
    "subprocess": {"cli", "outbound/helper.py", "server/checking.py"},
    "urllib.request": set(),
    "cryptography": {"cache", "credentials", "kept", "texts"},
    "uvicorn": {"admin"},
    "starlette": {"admin"},
    "uvloop": {"cli", "mock"},
    "h11": {"mock", "outbound"},
    "httpx": set(),
    "redis": {"cache", "stores"},
    "threading": {
        "admin",
        "budgets/counter.py",
        "budgets/tokenizer.py",
        "cli/_stop.py",
        "framing/shapes.py",
        "ledger",
        "outbound",
        "server/checking.py",
        "stores",
        "texts/stages.py",
        "telemetry/lines.py",
    },
    "tiktoken": {"budgets/tokenizer.py"},
    "psycopg": {"ledger"},
    "tempfile": {"cli", "credentials", "reports/settings_file.py"},
    "envoy_data_plane": {"envoy_config"},
    "betterproto2": {"envoy_config"},
    "prometheus_client": {"admin", "telemetry"},
    "google.protobuf": {"server"},
    "extproc.wire.pb": {"server"},
    "re2": {"guardrails"},
    "pickle": set(),
    "marshal": set(),
}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if "pb" not in path.relative_to(PACKAGE).parts)
INITS = [PACKAGE / "__init__.py", *(PACKAGE / wing / "__init__.py" for wing, rooms in WINGS.items() if rooms)]
"""The `__init__.py` of the package and of wings with several rooms. All other files are in rooms."""


def in_room(parts):
    """The parts of a module's path without its wing, where the wing has several rooms."""
    return parts[1:] if WINGS.get(parts[0]) else parts


def name(path):
    """A file's path without its wing. Names of rooms are unique."""
    return "/".join(in_room(path.relative_to(PACKAGE).parts))


def layer(parts):
    """The row of the map that a module stands in, by the parts of its name without `extproc`. The stages of all rooms
    share one.
    """
    parts = in_room(parts)
    return "stages" if "stages" in [part.lstrip("_") for part in parts[1:]] else parts[0]


def layer_of(path):
    return layer(path.relative_to(PACKAGE).with_suffix("").parts)


@cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path):
    """All nodes of a file's syntax tree. To walk it takes longer than to parse it."""
    return list(ast.walk(parsed(path)))


@cache
def imports(path, *, typing=True):
    """Modules that a file imports. Without `typing`, only those it imports at run time."""
    left_out = set()
    for node in () if typing else nodes(path):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            left_out |= {id(child) for statement in node.body for child in ast.walk(statement)}
    found = set()
    for node in nodes(path):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module != "__future__":
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def upwards(path):
    """Modules of higher rooms that a file imports."""
    here = layer_of(path)
    for found in imports(path):
        parts = found.split(".")
        if (
            parts[0] == "extproc"
            and len(parts) > 1
            and parts[1] != "__version__"
            and RANKS[layer(parts[1:])] > RANKS[here]
        ):
            yield found


def test_imports_point_one_way():
    """Imports under `if TYPE_CHECKING` count."""
    assert {path for path in INITS if imports(path)} == set()
    assert [f"{name(path)} imports {found}" for path in FILES if path not in INITS for found in upwards(path)] == []


def test_the_map_shows_every_room():
    assert {layer_of(path) for path in FILES} - {"__init__"} == set(ROOMS) - {"pb"}
    assert len({*ROOMS, *WINGS}) == len([*ROOMS, *(wing for wing, rooms in WINGS.items() if rooms)])


def test_a_listing_of_the_package_is_the_list_of_wings():
    assert [wing for wing, _ in groupby(wing or room for wing, room in MAP)] == list(WINGS)
    listed = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES}
    assert listed - {"__init__"} == set(WINGS)
    assert len(listed - {"__init__", "__main__"}) <= 16


def test_rooms_are_in_their_wings():
    for wing, rooms in WINGS.items():
        found = {path.parent.name for path in (PACKAGE / wing).glob("*/__init__.py")}
        assert not rooms or found == set(rooms) - LOOSE - {"stages"}


def test_loose_modules_are_the_path_of_a_request():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__"}
    found = {path for wing, rooms in WINGS.items() if rooms for path in (PACKAGE / wing).glob("[!_]*.py")}
    assert found == {PACKAGE / "exchange" / f"{room}.py" for room in LOOSE}


def modules_of(room):
    """Modules of a room, and the modules of it that each imports at run time."""
    names = {".".join(("extproc", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in FILES}
    names = {one.removesuffix(".__init__") for one in names}
    edges = {}
    for path in FILES:
        if layer_of(path) != room:
            continue
        here = ".".join(("extproc", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        found = {one if one in names else one.rpartition(".")[0] for one in imports(path, typing=False)}
        found = {one for one in found if one in names and in_room(one.split(".")[1:] or [""])}
        edges[here] = {one for one in found if layer(one.split(".")[1:] or [""]) == room} - {here}
    return edges


def test_modules_of_a_room_do_not_import_each_other_in_circles():
    for room in ROOMS:
        edges = modules_of(room)
        # A package that its own modules import is loaded before them, so this is no circle for Python.
        left = {here for here in edges if not any(other.startswith(here + ".") for other in edges)}
        while free := {here for here in left if not edges[here] & left}:
            left -= free
        assert left == set()


def reserved_imports(path):
    """Modules that a file imports although they are reserved for other rooms."""
    for found in imports(path):
        parts = found.split(".")
        for end in range(len(parts)):
            allowed = RESERVED.get(".".join(parts[: end + 1]))
            if allowed is not None and not {name(path), name(path).partition("/")[0]} & allowed:
                yield found


def test_input_and_output_stay_in_their_rooms():
    assert [f"{name(path)} imports {found}" for path in FILES for found in reserved_imports(path)] == []


def test_structs_are_made_where_threads_may_make_them():
    """See `framing/shapes.py`. Other types have nothing that msgspec reads at their first use."""
    without = {"str", "str | int | None", "dict[str, Any]"}
    found = [
        f"{name(path)}: {ast.unparse(node)}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (
            ast.unparse(node.func) == "msgspec.convert"
            or (
                ast.unparse(node.func) == "msgspec.json.decode"
                and {ast.unparse(word.value) for word in node.keywords if word.arg == "type"} - without
            )
        )
    ]
    assert [one for one in found if not one.startswith("framing/shapes.py: ")] == []


def test_the_room_words_imports_only_the_standard_library():
    for word in ("exchange.py", "errors.py", "actions.py", "contract.py", "tries.py", "said.py", "sample.py"):
        assert {found.split(".")[0] for found in imports(PACKAGE / "words" / word)} <= {
            *sys.stdlib_module_names,
            "extproc",
        }


# --- what an API's JSON looks like stays in dialects/


def test_rooms_of_dialects_name_their_files_alike():
    """The table in `dialects/__init__.py` lists every file, and only existing ones."""
    told = re.findall(r"^    (\w+\.py)  ", dialects.__doc__, re.MULTILINE)
    files = {path.name for path in Path(dialects.__file__).parent.glob("*/*.py")} - {"__init__.py"}
    assert sorted(told) == sorted(files)


OTHERS_JSON = ("dialects", "providers", "mcp", "mock", "pb", "reconcile")
"""Rooms that know field names: APIs, variants of one provider (its `adapt`), MCP, the built-in mock, generated code,
providers' reports of costs.
"""

TELLING = frozenset(
    (
        *("messages", "contents", "instructions", "role", "parts", "functions", "modalities"),
        *("choices", "candidates", "delta", "logprobs", "include", "temperature", "seed", "verbosity", "embedding"),
    )
)
"""Field names of one word that the gateway itself does not use. It uses model, name, type, usage and input."""

OUR_WORDS = {
    "status_code": "of HTTP in the Elastic Common Schema, see `telemetry.audit`",
    "input_tokens": "OpenTelemetry's and the ledger's word for what the gateway counts",
    "output_tokens": "as input_tokens",
    "cached_tokens": "as input_tokens",
    "cache_write_tokens": "as input_tokens",
    "reasoning_tokens": "as input_tokens",
    "role": "of an operator",
    "include": "further files of settings",
    "parts": "of a message in OpenTelemetry's events, see `telemetry.prompts`",
    "json_schema": "an ability, in `supports` of the settings",
    "hosted_tools": "a need, see `words.dialect.NATIVE`",
    "hosted_call": "as hosted_tools",
    "tool_calls": "a finish reason of the neutral form",
    "content_filter": "a finish reason of the neutral form",
    "file_search": "a price of the settings",
    "stop_sequence": "a finish reason of the neutral form",
    "tool_call": "a kind of part of the neutral form",
    "tool_name": "a role of text for guardrails",
    "delta": "the name of increments in every API that streams, so that text of unknown events is followed",
    "insufficient_quota": "a type of the gateway's own errors",
    "invalid_request_error": "a type of the gateway's own errors",
    "authentication_error": "a type of the gateway's own errors",
    "permission_error": "a type of the gateway's own errors",
    "rate_limit_error": "a type of the gateway's own errors",
    "api_error": "a type of the gateway's own errors",
    "server_error": "a code of OAuth 2.0",
    "anyOf": "JSON Schema's, of the settings and of the admin API",
    "additionalProperties": "JSON Schema's, of the settings and of the admin API",
}
"""Names that dialects know and that have another meaning in the gateway."""


def keys_in(tree):
    """Names that a file uses as field names: of structs, in objects it writes, in objects it reads."""
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.ClassDef):
            found = [line.target.id for line in node.body if isinstance(line, ast.AnnAssign)]
        elif isinstance(node, ast.Dict):
            found = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            found = [node.slice.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
            found = [key.value for key in node.args[:1] if isinstance(key, ast.Constant)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "field":
            found = [word.value.value for word in node.keywords if word.arg == "name"]
        yield from (name for name in found if isinstance(name, str))


@cache
def told_by_dialects():
    """Field names of several words that the dialects read, write or declare."""
    found = set()
    for path in FILES:
        if layer_of(path) == "dialects":
            found |= set(keys_in(parsed(path)))
    for dialect in dialects.client_apis().values():
        fields = dialect.fields
        found |= {*fields.fixed, *fields.output_limits, *fields.spoken, *fields.files, *fields.opaque, *fields.also}
    return {name for name in found if re.fullmatch(r"[a-z]+[A-Z_]\w*", name)} | TELLING


def strings_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            value = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            yield node.lineno, value.strip('"')
        elif isinstance(node, ast.ClassDef) and any("Struct" in ast.unparse(base) for base in node.bases):
            yield from ((line.lineno, line.target.id) for line in node.body if isinstance(line, ast.AnnAssign))


def test_only_dialects_name_fields_of_an_apis_json():
    """The neutral form, the APIs of webhooks and LiteLLM's configuration have these words too."""
    others = ("words/messages.py", "guardrails/webhook.py", "cli/_litellm_names.py")
    named = [
        f"{name(path)}:{line}: {text!r}"
        for path in FILES
        if layer_of(path) not in OTHERS_JSON and name(path) not in others
        for line, text in strings_of(parsed(path))
        if text in told_by_dialects() and text not in OUR_WORDS
    ]
    assert named == []


def test_files_are_short_enough_to_read():
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: count for path, count in lines.items() if count > 600} == {}


def test_the_mock_is_a_small_part_of_the_product():
    """Strict doubles of the providers' APIs are in tests/doubles."""
    assert (
        sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (PACKAGE / "upstream/mock").glob("*.py"))
        <= 1300
    )


TABLES = {"encode"}
"""Functions that are lists, one line for each field of a request."""


def test_functions_are_short_enough_to_read():
    long = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= 60
        and node.name not in TABLES
    ]
    assert long == []


def test_every_file_has_a_docstring():
    assert [name(path) for path in FILES if not ast.get_docstring(parsed(path))] == []


def test_the_folder_of_envoy_configurations_shadows_no_package():
    assert list((ROOT / "envoy").rglob("*.py")) == []


def test_every_file_is_tested():
    """By a file of its own, or by the tests of its room."""
    covered = {"response": "test_gateway.py", "services": "test_pipeline.py", "__main__": "cli/test_main.py"}
    for path in FILES:
        folder = TESTS.joinpath(*in_room(path.relative_to(PACKAGE).parts)[:-1])
        if path not in INITS and folder != TESTS:
            assert list(folder.glob("test_*.py")), f"{folder} has no tests"
    for room in {*LOOSE, "__main__"}:
        assert (TESTS / covered.get(room, f"test_{room}.py")).exists()


def test_every_plug_in_is_found():
    for package, found in (
        (dialects, dialects.families()),
        (providers, providers.kinds()),
        (guardrails, guardrails.kinds()),
        (strategies, strategies.strategies()),
    ):
        folder = Path(package.__file__).parent
        packages = {path.parent.name for path in folder.glob("*/__init__.py")}
        assert set(found) == packages | {path.stem for path in folder.glob("*.py") if path.stem[0] != "_"}
