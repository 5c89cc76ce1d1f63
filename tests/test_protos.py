"""Our messages equal Envoy's in field numbers and types, and the generated code equals the .proto files."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

import extproc.wire.pb
from extproc.wire.pb import extproc_pb2 as pb

envoy = pytest.importorskip("envoy_data_plane.envoy")

ROOT = Path(__file__).parents[1]
MODULES = [
    "envoy_data_plane.envoy.service.ext_proc.v3",
    "envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3",
    "envoy_data_plane.envoy.config.core.v3",
    "envoy_data_plane.envoy.config.endpoint.v3",
    "envoy_data_plane.envoy.type.v3",
    "envoy_data_plane.envoy.service.accesslog.v3",
    "envoy_data_plane.envoy.data.accesslog.v3",
    "envoy_data_plane.envoy.service.discovery.v3",
    "envoy_data_plane.google.rpc",
    "envoy_data_plane.google.protobuf",
]
TYPES = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}
HEALTH = {
    "HealthCheckRequest": {"service": (1, "string")},
    "HealthCheckResponse": {"status": (1, "enum")},
}
# An enum in Envoy's file. It is a number on the wire, and the number covers every status.
DIFFERENT = {("HttpStatus", "code"): "enum"}


def messages(container):
    for descriptor in container.values():
        if not descriptor.GetOptions().map_entry:
            yield descriptor
            yield from messages(descriptor.nested_types_by_name)


def path(descriptor):
    """`Outer.Inner`, as our file names it."""
    return descriptor.full_name.removeprefix("extproc.pb.")


def find(descriptor):
    """Envoy's own message. A nested type has the name of the outer one, and acronyms are capitalised as words."""
    name = path(descriptor).replace(".", "").replace("HTTP", "Http")
    return next(found for module in MODULES if (found := getattr(sys.modules.get(module) or load(module), name, None)))


def load(module):
    return __import__(module, fromlist=["x"])


ALL = list(messages(pb.DESCRIPTOR.message_types_by_name))
OURS = [descriptor for descriptor in ALL if path(descriptor) not in HEALTH]


def test_there_are_messages_to_compare():
    assert len(OURS) > 25


@pytest.mark.parametrize("descriptor", OURS, ids=path)
def test_every_field_has_envoys_number_and_type(descriptor):
    theirs = {field.name: field.metadata["betterproto"] for field in dataclasses.fields(find(descriptor))}
    for field in descriptor.fields:
        their = theirs[field.name]
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        kind = DIFFERENT.get((path(descriptor), field.name), TYPES[field.type])
        assert (field.number, "map" if is_map else kind) == (their.number, their.proto_type), field.name
        assert field.is_repeated == (their.repeated or is_map), field.name
        alone = [other.group for key, other in theirs.items() if key in descriptor.fields_by_name].count(
            their.group
        ) == 1
        ours = field.containing_oneof.name if field.containing_oneof else None
        assert ours == their.group or (ours is None and alone), (
            field.name
        )  # a oneof with one field is a plain field on the wire
        if is_map:
            entry = field.message_type.fields_by_name
            assert [TYPES[entry[part].type] for part in ("key", "value")] == [
                part.proto_type for part in their.map_meta
            ]


def enums():
    return [enum for descriptor in OURS for enum in descriptor.enum_types]


@pytest.mark.parametrize("enum", enums(), ids=path)
def test_every_value_of_an_enum_has_envoys_number(enum):
    theirs = {member.name: member.value for member in find(enum)}
    assert theirs.items() >= {value.name: value.number for value in enum.values}.items()


@pytest.mark.parametrize(("name", "fields"), HEALTH.items())
def test_the_health_messages_are_grpcs(name, fields):
    descriptor = pb.DESCRIPTOR.message_types_by_name[name]
    assert {field.name: (field.number, TYPES[field.type]) for field in descriptor.fields} == fields


def test_the_health_states_are_grpcs():
    [enum] = pb.DESCRIPTOR.message_types_by_name["HealthCheckResponse"].enum_types
    states = {value.name: value.number for value in enum.values}
    assert states == {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}


def test_the_generated_code_is_up_to_date(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}"]
    outputs = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(ROOT / "protos" / "extproc.proto")]
    subprocess.run([*command, *outputs], check=True)
    here = Path(extproc.wire.pb.__file__).parent
    for name in ("extproc_pb2.py", "extproc_pb2.pyi"):
        assert (tmp_path / name).read_text() == (here / name).read_text(), "run `make protos`"
