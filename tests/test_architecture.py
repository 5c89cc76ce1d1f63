"""The layers, read from the imports themselves."""

import ast
import sys
from pathlib import Path

import pytest

import extproc
from extproc import dialects, guardrails, providers, strategies

PACKAGE = Path(extproc.__file__).parent
ROOT = PACKAGE.parent
TESTS = Path(__file__).parent

# Imports point downwards: a module may import those of its own line and of the lines above it. A name stands for the
# module or for all of a package.
LAYERS = [
    (
        "pb",
        "exchange",
        "errors",
        "values",
        "actions",
        "histogram",
        "facts",
        "parameters",
        "messages",
        "effort",
        "media",
    ),
    ("contract", "framing", "dialects", "providers", "stores", "strategies", "prices", "history", "ledger", "https"),
    ("tokenizer", "parsing", "routing", "selection", "auth", "guardrails", "tokens", "credentials"),
    ("budgets", "settle", "forward", "models", "response", "caching", "counting", "translate", "alerts", "books"),
    ("config", "checks"),
    ("telemetry", "logs", "reference"),
    ("pipeline",),
    ("gateway", "attempt", "wire", "access_log"),
    ("server", "admin", "reports", "own"),
    ("processor", "explain", "question", "tables"),
    ("envoy_config", "mock"),
    ("up",),
    ("__main__",),
]
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Which outside modules do input and output, or speak a protocol, and who may import them.
RESERVED = {
    "grpc": {"server.py"},
    "asyncio": {
        "budgets",
        "books.py",
        "attempt.py",
        "gateway.py",
        "guardrails/__init__.py",
        "server.py",
        "admin",
        "credentials.py",
        "tokens.py",
        "https.py",
        "alerts.py",
        "reports.py",
        "own.py",
        "processor.py",
        "__main__.py",
        "stores",
        "mock",
    },
    "socket": {"server.py", "admin", "up.py", "https.py", "mock"},
    "ssl": {"mock", "tables.py"},
    "sqlite3": {"stores", "ledger"},
    "subprocess": {"up.py"},
    "urllib.request": {"up.py"},
    "http.client": {"https.py", "tables.py"},
    "cryptography": {"tokens.py"},
    "uvicorn": {"admin"},
    "starlette": {"admin"},
    "uvloop": {"__main__.py", "mock"},
    "h11": {"mock"},
    "httpx": set(),
    "redis": {"stores"},
    "threading": {"admin", "stores", "ledger", "tokenizer.py"},
    "tiktoken": {"tokenizer.py"},
    "sqlalchemy": {"ledger"},
    "psycopg": {"ledger"},
    "tempfile": {"up.py", "credentials.py"},
    "envoy_data_plane": {"envoy_config"},
    "betterproto2": {"envoy_config"},
    "prometheus_client": {"telemetry.py", "histogram.py", "admin"},
    "google.protobuf": {"wire.py", "access_log.py"},
    "extproc.pb": {"wire.py", "access_log.py", "server.py"},
    "re2": {"guardrails"},
    "pickle": set(),
    "marshal": set(),
}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if "pb" not in path.relative_to(PACKAGE).parts)


def name(path):
    return path.relative_to(PACKAGE).as_posix()


each_file = pytest.mark.parametrize("path", FILES, ids=name)


def layer_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


class Imports(ast.NodeVisitor):
    """Modules that are imported when the code runs: those under `if TYPE_CHECKING` are not."""

    def __init__(self):
        self.found = set()

    def visit_If(self, node):
        checking = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in [*([] if checking else node.body), *node.orelse]:
            self.visit(child)

    def visit_Import(self, node):
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node):
        assert node.level == 0, "imports are absolute"
        if node.module != "__future__":
            self.found |= {f"{node.module}.{alias.name}" for alias in node.names}


def imports(path):
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return visitor.found


@each_file
def test_imports_point_one_way(path):
    here = layer_of(path)
    if here == "__init__":
        assert imports(path) == set()
        return
    for found in imports(path):
        parts = found.split(".")
        if parts[0] == "extproc" and len(parts) > 1 and parts[1] != "__version__":
            assert RANKS[parts[1]] <= RANKS[here], f"{name(path)} imports {found}"


def test_every_module_has_its_layer():
    assert {layer_of(path) for path in FILES} - {"__init__"} == set(RANKS) - {"pb"}


@pytest.mark.parametrize("layer", LAYERS, ids=lambda names: names[0])
def test_modules_of_one_layer_do_not_import_each_other_in_circles(layer):
    edges = {
        here: {
            found.split(".")[1]
            for path in FILES
            if layer_of(path) == here
            for found in imports(path)
            if "extproc." in found
        }
        for here in layer
    }
    left = set(layer)
    while free := {here for here in left if not (edges[here] & left) - {here}}:
        left -= free
    assert left == set()


@each_file
def test_input_and_output_are_where_they_belong(path):
    package = name(path).partition("/")[0]
    for found in imports(path):
        for reserved, allowed in RESERVED.items():
            if found == reserved or found.startswith(reserved + "."):
                assert {name(path), package} & allowed, f"{name(path)} imports {found}"


def test_the_words_need_nothing_but_the_standard_library():
    for word in ("exchange.py", "errors.py", "actions.py"):
        assert {found.split(".")[0] for found in imports(PACKAGE / word)} <= {*sys.stdlib_module_names, "extproc"}


@each_file
def test_files_are_short_enough_to_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@each_file
def test_every_file_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_folder_of_envoy_configurations_shadows_no_package():
    assert list((ROOT / "envoy").rglob("*.py")) == []


@each_file
def test_every_file_is_tested(path):
    """By a file of its own, or by the contract tests of its package."""
    relative = path.relative_to(PACKAGE)
    folder = TESTS / relative.parent
    if len(relative.parts) > 1:
        assert list(folder.glob("test_*.py")), f"tests/{relative.parent} has no tests"
        return
    covered = {
        "__init__": "test_architecture.py",
        "exchange": "test_gateway.py",
        "errors": "dialects/test_contract.py",
        "actions": "test_wire.py",
        "contract": "test_forward.py",
        "facts": "budgets",
        "messages": "dialects",
        "translate": "test_attempt.py",
        "effort": "dialects",
        "response": "test_gateway.py",
        "prices": "test_models.py",
        "histogram": "test_telemetry.py",
        "question": "test_explain.py",
        "reference": "test_docs.py",
        "https": "test_tokens.py",
        "server": "e2e",
        "processor": "e2e",
        "up": "e2e",
        "__main__": "e2e",
    }
    assert (TESTS / covered.get(path.stem, f"test_{path.stem}.py")).exists()


def test_every_plug_in_is_found():
    for package, found in (
        (dialects, dialects.dialects()),
        (providers, providers.kinds()),
        (guardrails, guardrails.kinds()),
        (strategies, strategies.strategies()),
    ):
        folder = Path(package.__file__).parent
        packages = {path.parent.name for path in folder.glob("*/__init__.py")}
        assert set(found) == packages | {path.stem for path in folder.glob("*.py")} - {"__init__"}
