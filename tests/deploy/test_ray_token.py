import os

import pytest

from deploy.ray_token import MODE_VARIABLE, TOKEN_VARIABLE, require_ray_token


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODE_VARIABLE, raising=False)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def test_ray_wants_a_token_that_nobody_can_guess_and_that_stays_the_same() -> None:
    require_ray_token()
    mode, token = os.environ[MODE_VARIABLE], os.environ[TOKEN_VARIABLE]
    require_ray_token()
    assert (os.environ[MODE_VARIABLE], os.environ[TOKEN_VARIABLE]) == (mode, token)
    assert mode == "token"
    assert len(token) == 64


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_mode_that_the_user_has_chosen_stands(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE_VARIABLE, mode)
    require_ray_token()
    assert (os.environ[MODE_VARIABLE], os.environ.get(TOKEN_VARIABLE)) == (mode, None)
