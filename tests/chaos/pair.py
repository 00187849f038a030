"""One worker of each role, and a request whose KV is on its way from one to the other."""

from core.request import Role
from tests.chaos.cluster import ChaosCluster, Slot
from tests.chaos.model import ChaosModel, prompt_of
from tests.chaos.request import Outcome, Request

P, D = "prefill-0", "decode-0"
PAIR = (Slot(P, Role.PREFILL, num_blocks=192), Slot(D, Role.DECODE, num_blocks=96))
LONG = 1300  # tokens of a prompt that is under way for long enough to be hit
PROMPT = prompt_of(LONG)
NUM_NEW = 24  # tokens of its answer


def ask_until_moving(cluster: ChaosCluster) -> Request:
    """Asks, and waits until the first blocks have been sent on their way. Most of the prompt is still to come."""
    request = cluster.ask(PROMPT, NUM_NEW)
    cluster.wait_until(lambda: cluster.load(P).blocks_leased > 0, "moving KV")
    return request


def wait_until_stuck(cluster: ChaosCluster) -> None:
    """While the decode worker takes nothing: until all is computed, and a write is under way that cannot end."""
    cluster.wait_until(lambda: cluster.load(P).pending_prompt_tokens == 0, "computed")
    assert cluster.load(P).blocks_leased > 0


def check_answer(cluster: ChaosCluster, model: ChaosModel, request: Request) -> None:
    """The client gets what it would have got undisturbed, and nothing stays behind."""
    assert request.outcome() == Outcome(model.answer(PROMPT, NUM_NEW))
    cluster.settle()
