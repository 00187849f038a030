"""A worker in a process of its own, for tests that kill it. Its argument is a JSON object: fields of `WorkerConfig`.

It prints a line when it serves. For every line of input it prints, as JSON, what its books say. It ends with its
input.
"""

import dataclasses
import json
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from core.request import Role
from worker.config import WorkerConfig
from worker.process import WorkerProcess

LOOK_TIMEOUT_S = 30.0


def main() -> None:
    fields = json.loads(sys.argv[1])
    changes = {
        "role": Role(fields["role"]),
        "model_dir": Path(fields["model_dir"]),
        "routers": tuple(fields["routers"]),
    }
    process = WorkerProcess(WorkerConfig(**{**fields, **changes}))
    say({"worker": str(process.worker)})
    for _ in sys.stdin:
        say(look(process))
    process.stop()


def look(process: WorkerProcess) -> dict[str, Any]:
    """What the worker's loop finds between two steps, after everything it has been told so far."""
    future: Future[dict[str, Any]] = Future()

    def answer() -> None:
        try:
            process.engine.pool.check()
            future.set_result({"is_idle": process.prefill.is_idle, "load": dataclasses.asdict(process.loop.load())})
        except BaseException as error:  # noqa: BLE001 - the test must hear what is wrong with the pool
            future.set_exception(error)

    process._mailbox.post(answer)
    return future.result(LOOK_TIMEOUT_S)


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
