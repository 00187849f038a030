import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from core.errors import BatonError
from deploy.demo_model import ensure_demo_model
from router.text.tokenizer import TextCodec

settings.register_profile("any-machine", deadline=None)  # how long an example takes says nothing about our code
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def demo_model_dir() -> Path:
    """The demo model in the user's cache, built on first use. Tests only read it."""
    try:
        return ensure_demo_model()
    except BatonError as error:
        pytest.fail(f"the demo model cannot be built: {error}", pytrace=False)


@pytest.fixture(scope="session")
def demo_codec(demo_model_dir: Path) -> TextCodec:
    return TextCodec.load(demo_model_dir)


_exit_status = 0


def pytest_sessionfinish(exitstatus: int) -> None:
    global _exit_status  # noqa: PLW0603 - the two hooks share nothing else
    _exit_status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Ends the process without unloading its libraries: what tests left open of NIXL and UCX may crash in that."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_exit_status)
