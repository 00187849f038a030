"""The generated code is what `make proto` makes of the sources, and the sources keep to the naming rules."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from baton.v1 import common_pb2, control_pb2, generate_pb2, handoff_pb2, prefix_pb2, rank_pb2, worker_pb2
from google.protobuf.descriptor import FileDescriptor

REPOSITORY = Path(__file__).parent.parent
SOURCES = sorted((REPOSITORY / "proto/baton/v1").glob("*.proto"))
GENERATED = REPOSITORY / "proto/gen"
MODULES = [common_pb2, control_pb2, generate_pb2, handoff_pb2, prefix_pb2, rank_pb2, worker_pb2]


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder made by the same command as `make proto`."""
    folder = tmp_path_factory.mktemp("gen")
    outputs = [f"--{kind}={folder}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", *outputs]
    subprocess.run(  # the sources by the same relative paths, which stand in the output
        [*command, *(str(source.relative_to(REPOSITORY)) for source in SOURCES)], cwd=REPOSITORY, check=True
    )
    return folder


def generated_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*_pb2*") if path.suffix in (".py", ".pyi"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_generated_code_is_up_to_date(regenerated: Path) -> None:
    committed, fresh = generated_files(GENERATED), generated_files(regenerated)
    assert fresh, "protoc has made nothing"
    stale = sorted(name for name in committed.keys() | fresh.keys() if committed.get(name) != fresh.get(name))
    assert not stale, f"run `make proto`: proto/gen does not agree with proto/baton in {', '.join(stale)}"


def test_makefile_has_the_same_command() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    rule = re.search(r"^proto:.*?\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert rule is not None
    flags = re.findall(r"-{1,2}\w+?(?:_out)?=?(?=proto)", rule.group(1))
    assert flags == ["-I", "--python_out=", "--pyi_out=", "--grpc_python_out="]


def test_every_source_is_checked() -> None:
    assert [f"{source.stem}_pb2" for source in SOURCES] == [module.__name__.split(".")[-1] for module in MODULES]


@pytest.mark.parametrize("module", MODULES)
def test_names_keep_to_the_rules(module: object) -> None:
    file: FileDescriptor = module.DESCRIPTOR
    assert file.package == "baton.v1"
    for enum in file.enum_types_by_name.values():
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
        assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"
        assert all(value.name.startswith(f"{prefix}_") for value in enum.values)
    for service in file.services_by_name.values():
        assert service.name.endswith("Service")
        for method in service.methods:
            assert method.input_type.name == f"{method.name}Request"
            assert method.output_type.name == f"{method.name}Response"
    for message in file.message_types_by_name.values():
        assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", field.name) for field in message.fields)
