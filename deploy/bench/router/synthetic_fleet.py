"""A router's fleet of workers that exist on paper only: no streams, no processes. For measuring what choosing costs.

Everything that placement looks at is real: the fleet, its links with their books, the loads they have reported and
the index of the blocks they have. Only what would go over a stream goes nowhere.
"""

import os
import random

from core.blocks import NAME_BYTES, BlockChain, BlockName, root_name
from core.clock import SystemClock
from core.events import WorkerLoad
from core.ids import WorkerEndpoint, WorkerId
from core.kv_events import KvEvents, KvSnapshot, split_names
from core.request import Assignment, GenerationRequest, Role
from core.sampling import SamplingParams
from deploy.bench.router.synthetic_hello import BLOCK_TOKENS, FINGERPRINT, NUM_BLOCKS, synthetic_hello
from router.dispatch.dispatcher import FleetDispatcher
from router.fleet.fleet import Fleet
from router.fleet.link import FleetObserver, WorkerLink
from router.wire import StepReport

PROMPT_BLOCKS = 8  # 128 tokens, as at the front ends
PROMPT_TOKENS = BLOCK_TOKENS * PROMPT_BLOCKS
SHARED_BLOCKS = PROMPT_BLOCKS // 2  # of each prompt, that some workers have
PAST_PROMPT_BLOCKS = 32  # of the prompts that the index knows
NUM_BEGINNINGS = 64  # different ones that prompts share, such as system messages
HOLDERS_SHARE = 100  # one in so many workers has the same beginning
MAX_RUNNING = 128  # sequences of a decode worker
VOCAB_SIZE = 100_000
MAX_MODEL_LEN = 131_072


class PaperLink(WorkerLink):
    """A link whose orders go nowhere, and that says what it is told to."""

    _next_event = 0

    def say(self, load: WorkerLoad, observer: FleetObserver, stored: tuple[BlockName, ...] = ()) -> None:
        """Has the worker report a load, and names of blocks that it has got."""
        events = KvEvents(self._next_event, stored) if stored else None
        self._next_event += len(stored)
        self._take_report(StepReport(load=load, kv_events=events), observer)

    def say_first(self, observer: FleetObserver) -> None:
        """Has the worker report that it has no blocks yet."""
        snapshot = KvSnapshot(next=0, names=(), is_last=True)
        self._take_report(StepReport(load=self.load, kv_snapshot=snapshot), observer)

    def assign(self, assignment: Assignment) -> None:
        """See `WorkerLink.assign`."""

    def cancel(self, handoff_id: str) -> None:
        """See `WorkerLink.cancel`."""


class PaperFleet(Fleet):
    """A fleet that workers are put into.

    Args:
        observer: as of a fleet.
        rng: draws the workers' speeds.
    """

    def __init__(self, observer: FleetObserver, rng: random.Random) -> None:
        super().__init__("bench", SystemClock(), 10.0, observer)
        self._rng = rng

    def put(self, name: str, role: Role) -> PaperLink:
        """Attaches a worker."""
        endpoint = WorkerEndpoint(WorkerId(name, 1), f"{name}:1")
        link = PaperLink(endpoint, "bench", SystemClock(), 10.0)
        link.hello = synthetic_hello(endpoint, role, MAX_MODEL_LEN, self._rng.uniform(0.9, 1.1))
        self._links[name] = link
        self.on_attached(link)
        link.say_first(self)
        return link


class PaperCluster:
    """Workers with loads and blocks, and prompts for them.

    Args:
        num_workers: half of them for prompts, half for tokens.
        dispatcher: hears what the workers say.
    """

    def __init__(self, num_workers: int, dispatcher: FleetDispatcher) -> None:
        self._rng = random.Random(0)  # noqa: S311 - the same cluster every time
        self.fleet = PaperFleet(dispatcher, self._rng)
        dispatcher.bind(self.fleet)
        self._prefill = [self.fleet.put(f"prefill-{n:04}", Role.PREFILL) for n in range(num_workers // 2)]
        self._decode = [self.fleet.put(f"decode-{n:04}", Role.DECODE) for n in range(num_workers - num_workers // 2)]
        self._beginnings = [self._tokens(SHARED_BLOCKS) for _ in range(NUM_BEGINNINGS)]
        self._num_requests = 0
        for link in (*self._prefill, *self._decode):
            link.say(self._load(link), self.fleet)
        self._share_beginnings()

    def fill(self, num_blocks: int) -> None:
        """Has workers compute prompts until their blocks have so many names in all."""
        while (num_left := num_blocks - self.fleet.prefixes.num_names) > 0:
            num = min(num_left, PAST_PROMPT_BLOCKS)
            names = split_names(os.urandom(num * NAME_BYTES))
            for links in (self._prefill, self._decode):  # one computes it, one is handed it
                link = self._rng.choice(links)
                link.say(link.load, self.fleet, names)

    def reports(self, num_reports: int) -> list[tuple[PaperLink, WorkerLoad]]:
        """New loads of workers."""
        links = self._rng.choices((*self._prefill, *self._decode), k=num_reports)
        return [(link, self._load(link)) for link in links]

    def requests(self, num_requests: int) -> list[GenerationRequest]:
        """New prompts, each with a beginning that some workers have."""
        return [self._request() for _ in range(num_requests)]

    def _request(self) -> GenerationRequest:
        self._num_requests += 1
        prompt = (*self._rng.choice(self._beginnings), *self._tokens(PROMPT_BLOCKS - SHARED_BLOCKS))
        return GenerationRequest(f"{self._num_requests:032x}", prompt, 128, SamplingParams(seed=0))

    def _tokens(self, num_blocks: int) -> tuple[int, ...]:
        return tuple(self._rng.choices(range(VOCAB_SIZE), k=num_blocks * BLOCK_TOKENS))

    def _share_beginnings(self) -> None:
        for tokens in self._beginnings:
            chain = BlockChain(root_name(FINGERPRINT, ""), BLOCK_TOKENS)
            chain.extend(tokens)
            for links in (self._prefill, self._decode):
                for link in self._rng.sample(links, max(1, len(links) // HOLDERS_SHARE)):
                    link.say(link.load, self.fleet, tuple(chain.names))

    def _load(self, link: PaperLink) -> WorkerLoad:
        if link.role_state.takes(Role.PREFILL):
            num_queued = self._rng.randrange(8)
            return WorkerLoad(
                queued_prompts=num_queued,
                pending_prompt_tokens=num_queued * PROMPT_TOKENS,
                blocks_total=NUM_BLOCKS,
                blocks_free_together=NUM_BLOCKS,
                prefill_cost_change=self._rng.uniform(-0.1, 0.1),
            )
        num_sequences = self._rng.randrange(MAX_RUNNING)
        num_context_tokens = num_sequences * self._rng.randrange(256, 2048)
        return WorkerLoad(
            running_sequences=num_sequences,
            running_context_tokens=num_context_tokens,
            blocks_total=NUM_BLOCKS,
            blocks_free_together=NUM_BLOCKS - num_context_tokens // BLOCK_TOKENS,
            decode_cost_change=self._rng.uniform(-0.1, 0.1),
        )
