"""The wire contract keeps its own rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"
OF_A_CALL = re.compile(r"\w+(Request|Response)")
"""Such a message says what it is by its call, which is commented."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    target = tmp_path_factory.mktemp("proto") / "set"
    sources = sorted(PROTO.rglob("*.proto"))
    assert len(sources) >= 6
    arguments = ["protoc", f"-I{PROTO}", "--include_source_info", f"--descriptor_set_out={target}", *map(str, sources)]
    assert protoc.main(arguments) == 0
    return list(FileDescriptorSet.FromString(target.read_bytes()).file)


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(place.path): (place.leading_comments + place.trailing_comments).strip()
        for place in file.source_code_info.location
    }


def _without_comment(file: FileDescriptorProto) -> list[str]:
    comments, missing = _comments(file), []
    for number, message in enumerate(file.message_type):
        if not comments.get((4, number)) and not OF_A_CALL.fullmatch(message.name):
            missing.append(message.name)
        missing += [
            f"{message.name}.{field.name}"
            for index, field in enumerate(message.field)
            # A choice between messages is told by the messages.
            if not comments.get((4, number, 2, index)) and not (field.HasField("oneof_index") and field.type_name)
        ]
    for number, enum in enumerate(file.enum_type):
        if not comments.get((5, number)):
            missing.append(enum.name)
    for number, service in enumerate(file.service):
        if not comments.get((6, number)):
            missing.append(service.name)
        missing += [
            f"{service.name}.{method.name}"
            for index, method in enumerate(service.method)
            if not comments.get((6, number, 2, index))
        ]
    return missing


def test_every_message_field_enum_and_call_is_commented(files: list[FileDescriptorProto]) -> None:
    missing = [name for file in files for name in _without_comment(file)]
    assert missing == []


def test_the_first_value_of_every_enum_is_unspecified(files: list[FileDescriptorProto]) -> None:
    for file in files:
        for enum in file.enum_type:
            prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
            assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}_UNSPECIFIED", 0)
            assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


def test_every_call_has_a_request_and_a_response_of_its_own(files: list[FileDescriptorProto]) -> None:
    used: list[str] = []
    for file in files:
        for service in file.service:
            for method in service.method:
                assert method.input_type == f".connexon.v1.{method.name}Request"
                assert method.output_type == f".connexon.v1.{method.name}Response"
                used += [method.input_type, method.output_type]
    assert len(used) == len(set(used)) > 0


def test_every_time_says_its_unit_in_its_name(files: list[FileDescriptorProto]) -> None:
    for file in files:
        for message in file.message_type:
            for field in message.field:
                if re.search(r"(_at|time|now|expires|deadline)", field.name):
                    assert field.name.endswith("_ms"), f"{message.name}.{field.name}"


def test_nothing_is_nested_or_beyond_the_package_and_no_number_is_used_again(files: list[FileDescriptorProto]) -> None:
    for file in files:
        assert file.package == "connexon.v1"
        assert file.syntax == "proto3"
        for message in file.message_type:
            gone = [number for span in message.reserved_range for number in range(span.start, span.end)]
            numbers = sorted([*gone, *(field.number for field in message.field)])
            assert numbers == list(range(1, len(numbers) + 1)), message.name
            assert len(message.reserved_name) == len(gone), message.name
