import torch

from engine.parallel.placement import ELSEWHERE, ExpertPlacement

SLOTS = (0, 1, 2, 1, 3, 0)  # three ranks of two slots


def test_chosen_slots_hold_the_experts_wished_for() -> None:
    placement = ExpertPlacement(SLOTS, 0, 3, "cpu")
    experts = torch.randint(4, (50, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.tensor(SLOTS)[placement.choose(experts)], experts)


def test_tokens_with_other_experts_take_other_copies_and_their_row_does_not_matter() -> None:
    placement = ExpertPlacement(SLOTS, 0, 3, "cpu")
    experts = torch.tensor([[0, 2], [0, 3], [0, 1], [2, 0]])
    slots = placement.choose(experts)
    assert slots.tolist() == [[0, 2], [5, 4], [5, 3], [2, 0]]
    assert torch.equal(placement.choose(experts.flip(0)), slots.flip(0))


def test_each_rank_sees_its_own_slots_and_the_rest_elsewhere() -> None:
    seen = []
    for rank in range(3):
        placement = ExpertPlacement(SLOTS, rank, 3, "cpu")
        assert tuple(placement.local) == SLOTS[2 * rank : 2 * rank + 2]
        seen.append(placement.to_local(torch.arange(6)).tolist())
    away = ELSEWHERE
    assert seen == [[0, 1, away, away, away, away], [away, away, 0, 1, away, away], [away, away, away, away, 0, 1]]


def test_no_tokens_choose_no_slots() -> None:
    assert ExpertPlacement(SLOTS, 0, 3, "cpu").choose(torch.empty(0, 2, dtype=torch.int64)).shape == (0, 2)
