import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from loadtest.workloads.draws import parse_draws
from loadtest.workloads.plan import ConversationPlan
from loadtest.workloads.sharegpt import RecordedConversations, read_conversations

SHAREGPT = {
    "id": "a",
    "conversations": [
        {"from": "gpt", "value": "an answer to nothing"},
        {"from": "human", "value": "How are you?"},
        {"from": "gpt", "value": "Well, thank you."},
        {"from": "human", "value": "And now?"},
        {"from": "gpt", "value": "Still well."},
        {"from": "human", "value": "Never answered"},
    ],
}
MESSAGES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": ""},
    ]
}


def written(folder: Path, entries: Any) -> Path:  # noqa: ANN401 - good and bad ones
    path = folder / "dataset.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def recorded(path: Path, *, is_multi_turn: bool = True, answers: str = "", seed: int = 0) -> RecordedConversations:
    draws = parse_draws(answers, "--answer-tokens") if answers else None
    thinking = parse_draws("2:3", "--think-s")
    return RecordedConversations(
        read_conversations(path), is_multi_turn, lambda text: len(text.split()), draws, thinking, seed
    )


def texts(plan: ConversationPlan) -> list[list[tuple[str, str | None]]]:
    return [[(message.role, message.pieces[0].text) for message in turn.messages] for turn in plan.turns]


def test_every_answered_message_is_a_turn_with_the_recorded_length(tmp_path: Path) -> None:
    (plan,) = recorded(written(tmp_path, [SHAREGPT])).plans_at(iter([1.5, 2.5]))
    assert plan.at_s == 1.5
    assert texts(plan) == [[("user", "How are you?")], [("user", "And now?")]]
    assert [turn.answer_tokens for turn in plan.turns] == [3, 2]
    assert [turn.num_tokens for turn in plan.turns] == [3, 2]
    assert plan.turns[0].think_s == 0
    assert 2 <= plan.turns[1].think_s <= 3


def test_only_the_first_turn_is_asked_unless_all_are_wanted(tmp_path: Path) -> None:
    (plan,) = recorded(written(tmp_path, [SHAREGPT]), is_multi_turn=False).plans_at(iter([None]))
    assert texts(plan) == [[("user", "How are you?")]]


def test_messages_in_the_form_of_the_api_keep_their_roles(tmp_path: Path) -> None:
    (plan,) = recorded(written(tmp_path, [MESSAGES])).plans_at(iter([None]))
    assert texts(plan) == [[("system", "Be brief."), ("user", "Hello")]]
    assert plan.turns[0].answer_tokens == 1


def test_halves_of_characters_are_marked(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "\ud83d\ude00 é \ud83d"}
    (plan,) = recorded(written(tmp_path, [{"messages": [asked, MESSAGES["messages"][2]]}])).plans_at(iter([None]))
    assert texts(plan) == [[("user", "\U0001f600 é \ufffd")]]


def test_answers_may_have_another_length(tmp_path: Path) -> None:
    (plan,) = recorded(written(tmp_path, [SHAREGPT]), answers="70").plans_at(iter([None]))
    assert [turn.answer_tokens for turn in plan.turns] == [70, 70]


def test_order_depends_on_the_seed_and_each_is_asked_once(tmp_path: Path) -> None:
    entries = [{"messages": [{"role": "user", "content": str(i)}, MESSAGES["messages"][2]]} for i in range(50)]
    path = written(tmp_path, entries)

    def asked(seed: int) -> list[str | None]:
        return [texts(plan)[0][0][1] for plan in recorded(path, seed=seed).plans_at(iter([None] * 99))]

    assert asked(1) == asked(1) != asked(2)
    assert sorted(map(str, asked(1))) == sorted(map(str, range(50)))


def test_conversations_without_an_answer_are_left_out(tmp_path: Path) -> None:
    silent = {"conversations": SHAREGPT["conversations"][-1:]}
    backwards = {"conversations": [SHAREGPT["conversations"][0], SHAREGPT["conversations"][-1]]}
    assert len(read_conversations(written(tmp_path, [silent, MESSAGES, backwards]))) == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "is no list"),
        ([], "no conversation with an answer, of 0"),
        ([MESSAGES, {"text": "x"}], "entry 1 has neither"),
        ([7], "entry 0 has neither"),
        ([{"messages": [{"role": "tool", "content": "x"}]}], "entry 0 has a message .* unknown role"),
        ([{"messages": [{"content": "x"}]}], "entry 0 has a message without"),
        ([{"messages": ["x"]}], "entry 0 has a message without"),
        ([{"messages": [{"role": "user", "content": [1]}]}], "entry 0 has a message whose `content` is no text"),
    ],
)
def test_what_is_no_data_set_is_refused_with_the_place(tmp_path: Path, entries: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match=message):
        read_conversations(written(tmp_path, entries))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_conversations(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("[", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no JSON"):
        read_conversations(tmp_path / "bad.json")
