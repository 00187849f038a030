from pathlib import Path

import pytest

from tests.rpc.certs import TestAuthority, new_authority


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return new_authority(tmp_path / "ca")
