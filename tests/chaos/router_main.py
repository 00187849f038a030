"""A router in a process of its own. Its argument is a JSON object: fields of `RouterConfig`.

It prints a line when it serves, and ends with its input.
"""

import asyncio
import json
import sys
from pathlib import Path

from router.config import RouterConfig
from router.process import run_router


async def main() -> None:
    fields = json.loads(sys.argv[1])
    config = RouterConfig(**{**fields, "model_dir": Path(fields["model_dir"])})
    async with run_router(config) as addresses:
        sys.stdout.write(json.dumps({"cluster_port": addresses.cluster_port}) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
