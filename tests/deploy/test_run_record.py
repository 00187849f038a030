import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.errors import ConfigError, UnavailableError
from core.processes import started_after_boot_s
from deploy.run_record import (
    RunRecord,
    find_cluster,
    record_of_this_process,
    running_clusters,
    runs_dir,
)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def mine() -> RunRecord:
    return record_of_this_process(
        url="http://127.0.0.1:8000",
        grpc_address="127.0.0.1:8001",
        model="demo",
        log_dir="/tmp/logs",  # noqa: S108
    )


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs until its input ends."""
    command = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process


def record_of(process: "subprocess.Popen[bytes]", mine: RunRecord) -> RunRecord:
    started_s = started_after_boot_s(psutil.Process(process.pid))
    return replace(mine, pid=process.pid, started_s=started_s, url="http://127.0.0.1:18000")


def test_written_record_is_found_and_removed_one_is_not(mine: RunRecord, empty_cache: Path) -> None:
    mine.write()
    assert mine.path == empty_cache / "baton" / "clusters" / f"{os.getpid()}.json"
    assert running_clusters() == [mine]
    assert find_cluster(None) == find_cluster(8000) == mine
    mine.remove()
    mine.remove()
    assert running_clusters() == []


def test_no_record_means_no_cluster() -> None:
    assert running_clusters() == []
    with pytest.raises(UnavailableError, match=r"^no cluster runs on this machine; start one with `baton serve`$"):
        find_cluster(None)


def test_other_port_means_no_cluster_there(mine: RunRecord) -> None:
    mine.write()
    with pytest.raises(UnavailableError, match="no cluster runs at port 800 on this machine"):
        find_cluster(800)


def test_record_of_an_ended_process_is_removed(mine: RunRecord, child: "subprocess.Popen[bytes]") -> None:
    record = record_of(child, mine)
    record.write()
    assert running_clusters() == [record]
    child.communicate()
    assert running_clusters() == []
    assert not record.path.exists()


def test_process_that_ended_and_was_not_waited_for_does_not_run(
    mine: RunRecord, child: "subprocess.Popen[bytes]"
) -> None:
    record = record_of(child, mine)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert record.process() is None


def test_other_process_with_the_same_pid_is_not_mistaken_for_it(mine: RunRecord) -> None:
    old = replace(mine, started_s=mine.started_s - 60)
    old.write()
    assert old.process() is None
    assert running_clusters() == []
    assert not old.path.exists()


def test_cluster_is_still_found_after_the_system_clock_was_set(
    mine: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write()
    boot_s = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_s + 3600)
    assert running_clusters() == [mine]


def test_two_clusters_need_a_port(mine: RunRecord, child: "subprocess.Popen[bytes]") -> None:
    other = record_of(child, mine)
    for record in (other, mine):
        record.write()
    assert running_clusters() == [mine, other]  # the newest last
    message = r"several clusters run \(http://127\.0\.0\.1:8000, http://127\.0\.0\.1:18000\); choose one with --port"
    with pytest.raises(ConfigError, match=message):
        find_cluster(None)
    assert (find_cluster(8000), find_cluster(18000)) == (mine, other)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"pid": 1}', "\udcff", '{"pid": "x"}'])
def test_file_that_is_no_record_is_removed(content: str, mine: RunRecord) -> None:
    mine.write()
    broken = runs_dir() / "1.json"
    broken.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert running_clusters() == [mine]
    assert not broken.exists()


def test_record_with_values_of_wrong_types_is_removed(mine: RunRecord) -> None:
    mine.write()
    content = json.loads(mine.path.read_text(encoding="utf-8"))
    mine.path.write_text(json.dumps({**content, "pid": "x"}), encoding="utf-8")
    assert running_clusters() == []
    assert not mine.path.exists()


def test_record_of_a_newer_version_is_read_as_far_as_it_is_known(mine: RunRecord) -> None:
    mine.write()
    content = json.loads(mine.path.read_text(encoding="utf-8"))
    mine.path.write_text(json.dumps({**content, "later": 1}), encoding="utf-8")
    assert running_clusters() == [mine]


def test_half_written_record_is_not_seen(mine: RunRecord) -> None:
    mine.write()
    (runs_dir() / "7.partial").write_text("{", encoding="utf-8")
    assert running_clusters() == [mine]
