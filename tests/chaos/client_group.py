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
    Question(number, kind, is_streamed=is_streamed, body={**SAMPLING[kind], "model": MODEL, "max_tokens": NUM_NEW})
    for number, (kind, is_streamed) in enumerate(
        [(Kind.RULED, True), (Kind.SCORED, True), (Kind.RULED, False), (Kind.GREEDY, False)]
    )
]


class ClientGroup:
    """Asks on construction.

    Args:
        cluster: that is asked.
        stops: a stop string by the number of the question.
        salt: KV is shared by groups of the same one only; None for that of nobody else.
    """

    def __init__(self, cluster: ChaosCluster, stops: dict[int, str], salt: str | None = None) -> None:
        salt = salt or cluster.new_salt()
        asked = [asking(question, stops.get(question.number), salt) for question in QUESTIONS]
        self._over_http: Future[list[Asked]] = Future()
        threading.Thread(target=self._ask, args=(cluster.url, asked), daemon=True).start()
        self.over_grpc = Request(cluster.stub, grpc_request(salt))

    @property
    def has_ended(self) -> bool:
        return self.over_grpc.has_ended and self._over_http.done()

    def answers(self) -> dict[int, Answer]:
        """Over HTTP, by the number of the question; all of them."""
        asked = self._over_http.result(ANSWER_TIMEOUT_S)
        assert not [each.failure for each in asked if each.failure], asked
        return {each.question.number: each.answer for each in asked if each.answer is not None}

    def _ask(self, url: str, asked: list[Question]) -> None:
        try:
            self._over_http.set_result(ask_all(url, iter(asked), len(asked), lambda _ended: None))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answers must hear of it
            self._over_http.set_exception(error)


def asking(question: Question, stop: str | None, salt: str) -> Question:
    """With a prompt of its own."""
    text = f"{question.number}" + "".join(chr(ord("a") + index * index % 26) for index in range(TEXT_CHARS))
    body = {
        **question.body,
        "messages": [{"role": "user", "content": text}],
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
