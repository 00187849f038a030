"""What is made of an actor's answer; the actors themselves run in `tests/cluster`."""

import pytest

from core.errors import CheckpointError
from deploy import ray_cluster
from deploy.ray_cluster import Member, answer_of


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (Member("decode-0", None), "the file is gone"),
        (Member("rank 1 of decode-0", None, is_of_several=True), "rank 1 of decode-0: the file is gone"),
    ],
)
def test_error_at_the_start_keeps_its_type_and_says_which_rank(
    member: Member, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster.ray, "get", lambda _call, **_options: CheckpointError("the file is gone"))
    with pytest.raises(CheckpointError) as caught:
        answer_of(member, None, timeout_s=1.0)
    assert caught.value.message == message
