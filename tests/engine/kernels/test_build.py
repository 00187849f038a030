from pathlib import Path

import pytest

from core.errors import ConfigError
from engine.config import ModelConfig
from engine.engine import Engine
from engine.kernels import build, choice
from engine.kernels.build import KernelsUnavailableError, build_library
from engine.kernels.native import native_kernels
from engine.parallel.topology import ONE_RANK, ShardTopology
from engine.sizing import kv_layout
from tests.engine.checkpoints import write_tiny_dense, write_tiny_moe


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "CPU_FEATURES", frozenset())
    return tmp_path / "baton" / "kernels"


def library_that_compiles(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replaces the compiler by one that writes an empty library; returns the commands it is called with."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> str:
        if "-o" in command:
            commands.append(command)
            Path(command[command.index("-o") + 1]).touch()
        return "g++ of the test"

    monkeypatch.setattr(build, "run", run)
    monkeypatch.setattr(build.shutil, "which", lambda name: f"/usr/bin/{name}")
    return commands


def test_compiles_once(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = library_that_compiles(monkeypatch)
    library = build_library()
    assert build_library() == library
    assert library.parent == empty_cache
    assert len(commands) == 1


def test_other_flags_make_another_library(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library_that_compiles(monkeypatch)
    library = build_library()
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-g"])
    assert build_library() != library
    assert {path.suffix for path in empty_cache.iterdir()} == {".so", ".lock"}


def test_a_cpu_without_the_instructions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CPU_FEATURES", frozenset({"teleport"}))
    with pytest.raises(KernelsUnavailableError, match="the CPU has no teleport"):
        build_library()


@pytest.mark.usefixtures("empty_cache")
def test_a_machine_without_compiler_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda _name: None)
    with pytest.raises(KernelsUnavailableError, match=r"apt-get install g\+\+"):
        build_library()


@pytest.mark.usefixtures("empty_cache")
def test_the_compilers_error_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FLAGS", ["-no-such-flag"])
    if build.shutil.which(build.COMPILER) is None:
        pytest.skip(f"no {build.COMPILER} here")
    with pytest.raises(KernelsUnavailableError, match="no-such-flag"):
        build_library()


def test_a_cache_that_cannot_be_used_leaves_it_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(build, "CPU_FEATURES", frozenset())
    monkeypatch.setattr(build.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(build, "run", lambda _command: "g++ of the test")
    with pytest.raises(KernelsUnavailableError, match=r"cannot be kept or loaded: .*Not a directory"):
        native_kernels.__wrapped__(1)


def obstacle_of(
    model_dir: Path, dtype: str = "bfloat16", block_tokens: int = 16, topology: ShardTopology = ONE_RANK
) -> str | None:
    config = ModelConfig.from_dir(model_dir)
    return choice._obstacle(config, kv_layout(config, block_tokens, dtype, topology), "cpu", topology)


def test_models_the_kernels_cannot_do_are_left_to_torch(tmp_path: Path) -> None:
    fits = write_tiny_moe(tmp_path / "fits", head_dim=32)
    assert obstacle_of(fits) is None
    assert "float32" in str(obstacle_of(fits, dtype="float32"))
    assert "block_tokens that is a multiple of 16, not 8" in str(obstacle_of(fits, block_tokens=8))
    narrow = write_tiny_moe(tmp_path / "narrow", head_dim=32, moe_intermediate_size=24)
    assert "moe_intermediate_size that is a multiple of 32, not 24" in str(obstacle_of(narrow))
    grouped = write_tiny_dense(tmp_path / "grouped", head_dim=32, num_attention_heads=32, num_key_value_heads=1)
    assert "16 query heads per KV head, not 32" in str(obstacle_of(grouped))


def test_what_counts_is_what_one_rank_holds(tmp_path: Path) -> None:
    model_dir = write_tiny_moe(tmp_path, head_dim=32, intermediate_size=128)
    assert obstacle_of(model_dir, topology=ShardTopology(1, 2)) is None
    refused = str(obstacle_of(model_dir, topology=ShardTopology(2, 1)))
    assert "moe_intermediate_size that is a multiple of 32, not 16 on each rank" in refused
    refused = str(obstacle_of(model_dir, topology=ShardTopology(2, 2)))
    assert "width of shared experts that is a multiple of 32, not 16 on each rank" in refused


def test_asking_for_what_cannot_be_had_is_refused(tmp_path: Path) -> None:
    model_dir = write_tiny_dense(tmp_path)
    with pytest.raises(ConfigError, match="kernels is 'native', but they compute bfloat16 on a CPU, not float32"):
        Engine.load(model_dir, num_blocks=64, kernels="native")
    with pytest.raises(ConfigError, match="kernels is 'fast'; it must be one of auto, native, torch"):
        Engine.load(model_dir, num_blocks=64, kernels="fast")
