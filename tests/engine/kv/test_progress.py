from engine.kv.progress import StepProgress


def test_progress_before_the_step_begins_no_layer_is_final() -> None:
    progress = StepProgress(num_layers=3)
    assert progress.num_begun == 0
    assert progress.num_final_layers(1) == 0


def test_progress_layers_of_the_step_become_final_one_by_one() -> None:
    progress = StepProgress(num_layers=3)
    progress.begin()
    seen = [progress.num_final_layers(1)]
    for _ in range(3):
        progress.end_layer()
        seen.append(progress.num_final_layers(1))
    assert seen == [0, 1, 2, 3]
    assert progress.num_final_layers(2) == 0


def test_progress_a_step_that_failed_in_the_middle_writes_nothing_any_more() -> None:
    progress = StepProgress(num_layers=3)
    progress.begin()
    progress.end_layer()
    progress.end()
    assert progress.num_final_layers(1) == 3


def test_progress_earlier_steps_stay_final_while_a_later_one_computes() -> None:
    progress = StepProgress(num_layers=3)
    progress.begin()
    progress.end()
    progress.begin()
    assert progress.num_begun == 2
    assert [progress.num_final_layers(step) for step in (1, 2, 3)] == [3, 0, 0]


def test_progress_a_step_settles_when_all_ranks_have_ended_it_and_not_before() -> None:
    progress = StepProgress(num_layers=1)
    for step in (1, 2):
        progress.begin()
        progress.end()
        assert not progress.has_settled(step)
        progress.settle()
        assert [progress.has_settled(other) for other in (1, 2, 3)] == [True, step == 2, False]
