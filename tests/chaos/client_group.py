"""Clients of every kind that ask at once, for everything that can be asked for: gRPC, server-sent events, whole."""

import threading
from concurrent.futures import Future

from baton.v1 import generate_pb2

from deploy.bench.chaos.answer import Answer
from deploy.bench.chaos.client import Asked
from deploy.bench.chaos.question import SAMPLING, Kind, Question
from deploy.bench.chaos.storm import ask_all
from tests.chaos.cluster import MODEL, ChaosCluster
from tests.chaos.request import Request

TEXT_CHARS = 1000  # as many tokens; a prompt that is under way for long enough to be hit
NUM_NEW = 60
ANSWER_TIMEOUT_S = 150.0  # longer than any client waits
QUESTIONS = [
    Question(number, kind, is_streamed=is_streamed, body={**SAMPLING[kind], "model": MODEL})
    for number, (kind, is_streamed) in enumerate(
        [(Kind.RULED, True), (Kind.SCORED, True), (Kind.RULED, False), (Kind.GREEDY, False)]
    )
]


class HttpClients:
    """Those over HTTP; they ask on construction.

    Args:
        cluster: that is asked.
        stops: a stop string by the number of the question.
        salt: KV is shared by clients of the same one only.
        num_new: tokens of each answer at most.
    """

    def __init__(self, cluster: ChaosCluster, stops: dict[int, str], salt: str, num_new: int = NUM_NEW) -> None:
        asked = [asking(question, stops.get(question.number), salt, num_new) for question in QUESTIONS]
        self._ended: Future[list[Asked]] = Future()
        threading.Thread(target=self._ask, args=(cluster.url, asked), daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self._ended.done()

    def ended(self) -> list[Asked]:
        """What became of all questions; none failed."""
        asked = self._ended.result(ANSWER_TIMEOUT_S)
        assert not [each.failure for each in asked if each.failure], asked
        return asked

    def answers(self) -> dict[int, Answer]:
        """By the number of the question."""
        return {each.question.number: each.answer for each in self.ended() if each.answer is not None}

    def _ask(self, url: str, asked: list[Question]) -> None:
        try:
            self._ended.set_result(ask_all(url, iter(asked), len(asked), lambda _ended: None))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answers must hear of it
            self._ended.set_exception(error)


class ClientGroup:
    """Clients of every kind; they ask on construction.

    Args:
        cluster: that is asked.
        stops: a stop string by the number of the question over HTTP.
        salt: KV is shared by groups of the same one only; None for that of nobody else.
    """

    def __init__(self, cluster: ChaosCluster, stops: dict[int, str], salt: str | None = None) -> None:
        salt = salt or cluster.new_salt()
        self.over_http = HttpClients(cluster, stops, salt)
        self.over_grpc = Request(cluster.stub, grpc_request(salt))

    @property
    def has_ended(self) -> bool:
        return self.over_grpc.has_ended and self.over_http.has_ended


def differences(got: dict[int, Answer], expected: dict[int, Answer]) -> list[str]:
    """What is wrong with answers, in words."""
    assert got.keys() == expected.keys()
    return [difference for number in got if (difference := got[number].difference(expected[number]))]


def asking(question: Question, stop: str | None, salt: str, num_new: int) -> Question:
    """With a prompt of its own."""
    text = f"{question.number}" + "".join(chr(ord("a") + index * index % 26) for index in range(TEXT_CHARS))
    body = {
        **question.body,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": num_new,
        "seed": question.number,
        "cache_salt": salt,
        **({"stop": [stop]} if stop else {}),
    }
    return Question(question.number, question.kind, question.is_streamed, body)


def grpc_request(salt: str) -> generate_pb2.GenerateRequest:
    """Seeded, with all that changes logits."""
    ruled = SAMPLING[Kind.RULED]
    sampling = generate_pb2.SamplingOptions(
        **{name: value for name, value in ruled.items() if name not in {"logit_bias", "bad_words"}},
        logit_bias={int(token): bias for token, bias in ruled["logit_bias"].items()},
        bad_words=ruled["bad_words"],
        seed=11,
        logprobs=1,
    )
    return generate_pb2.GenerateRequest(
        model=MODEL,
        text="gRPC " + "x" * TEXT_CHARS,
        max_tokens=NUM_NEW,
        sampling=sampling,
        ignore_eos=True,
        cache_salt=salt,
    )
