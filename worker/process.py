"""The worker process, rank 0 of it: one engine, both halves, the loop, and the gRPC services around them.

With more than one rank, the others are `worker.follower` processes that do their part of what this one decides.
"""

import asyncio
import contextlib
import logging
import threading
from functools import partial

from baton.v1 import handoff_pb2_grpc, prefix_pb2_grpc, worker_pb2_grpc

from core.clock import Clock, SystemClock
from core.crash import depart, die
from core.errors import ShardGroupError
from core.events import WorkerLoad
from core.ids import WorkerEndpoint, WorkerId
from core.kv_events import KvEvents
from core.roles import RoleState
from core.transfers import PairStats
from decode_worker.half import DecodeHalf
from kvtransfer.group_mover import GroupMover
from prefill_worker.half import PrefillHalf
from rpc.servers import new_server
from worker.announcer import announce
from worker.attach_service import AttachService
from worker.config import WorkerConfig
from worker.cost.startup import start_cost
from worker.cost.tracker import CostTracker
from worker.deaths import DeathDesk
from worker.event_thread import EventThread
from worker.experts import ExpertDesk
from worker.handoff_client import BEGIN_TIMEOUT_S, MIGRATION_BEGIN_TIMEOUT_S, GrpcHandoffPort
from worker.handoff_service import HandoffService
from worker.identity import WorkerIdentity
from worker.inbound import InboundCount
from worker.link_service import LinkService
from worker.links import PULL, Links
from worker.loop import WorkerLoop
from worker.mailbox import Mailbox
from worker.name_desk import NameDesk
from worker.peers import Peers
from worker.ports import bind_any_port
from worker.prefix_client import GrpcPrefixPort
from worker.prefix_exporter import PrefixExporter
from worker.prefix_service import PrefixService
from worker.pulling import PullClient
from worker.rank import Rank, open_rank
from worker.reads import ReadDesk
from worker.remote_mover import RemoteMover
from worker.report import StepOutbox, StepReport
from worker.role_book import RoleBook
from worker.transfer_log import TransferCounts, TransferLog
from worker.turns import LONG_TURN_NS, take_turns_of

STOP_TIMEOUT_S = 5.0
FINISH_TIMEOUT_S = 2.0  # for routers to read what a worker that leaves has said last

logger = logging.getLogger(__name__)


class WorkerProcess:
    """Starts on construction and serves until `stop`; or until it has left, which ends the process.

    Args:
        config: everything that can be set; of rank 0.
        store_address: where the ranks of the worker meet; None for a worker of one rank.

    Raises:
        CheckpointError: the model cannot be served.
        ConfigError: a setting cannot work.
        UnavailableError: the other ranks did not come.
    """

    def __init__(self, config: WorkerConfig, store_address: str | None = None) -> None:
        assert config.rank == 0, f"rank {config.rank} follows; it is a FollowerProcess"
        rank = open_rank(config, store_address, on_crash=die)
        self.config = config
        self.worker = rank.worker
        self.engine = rank.engine
        self._mailbox = Mailbox()
        self._events = EventThread("control")
        self._processes = rank.processes
        self._mover = self._lead(rank)
        self.endpoint = self._events.run(self._bind())
        self._assemble()
        self._events.run(self._serve())
        self._engine_thread = threading.Thread(target=self._run_loop, name="engine", daemon=True)
        self._engine_thread.start()
        logger.info("worker %s serves %s at %s", self.worker, config.model_dir, self.endpoint.address)

    def stop(self) -> None:
        """Ends streams, threads and registrations, and lets the other ranks go; work in progress is dropped."""
        self.loop.stop()
        self._engine_thread.join(STOP_TIMEOUT_S)
        if not self._engine_thread.is_alive():
            with contextlib.suppress(ShardGroupError):  # a rank died before: there is nobody left to tell
                self.engine.close()
        self._events.run(self._stop_server())
        self._mover.close()
        self._events.stop()

    def leave(self, drain_timeout_s: float | None = None) -> None:
        """Has the process end when its work has gone elsewhere or ended; from any thread, and a signal handler.

        All routers hear of it. What has neither gone nor ended in time comes back to them, to be placed again.

        Args:
            drain_timeout_s: seconds for that; None takes the setting. A second call can only bring the end nearer.
        """
        self._events.loop.call_soon_threadsafe(self._begin_leaving, drain_timeout_s)

    def _lead(self, rank: Rank) -> GroupMover:
        """Waits until all other ranks are loaded, and takes hold of their ends of the transfer plane."""
        addresses = rank.communicator.gather_object(None)
        assert addresses is not None, "rank 0 gathers"
        others = [
            RemoteMover(
                f"rank {number} of {self.worker}",
                address,
                self._events.loop,
                on_lost=die,
                security=self.config.security,
            )
            for number, address in enumerate(addresses[1:], start=1)
        ]
        for other in others:
            self._events.run(other.open())
        return GroupMover([rank.mover, *others], rank.geometry)

    def _assemble(self) -> None:
        """Connects links, halves, ports and loop."""
        clock, outbox = SystemClock(), StepOutbox()
        config, engine, events = self.config, self.engine, self._events.loop
        self._cost_model = start_cost(engine, config.max_num_batched_tokens, config.max_num_seqs)
        self._peers = Peers(self.worker, engine.fingerprint, self._mover, clock, config.security)
        inbound = InboundCount(self._mover.set_inbound)
        pulling = PullClient(self.endpoint, self._peers, engine.progress.has_settled, inbound)
        self._links = Links(self._peers, self._mover, events, pulling if config.kv_direction == PULL else None)
        sent: dict[WorkerId, PairStats] = {}
        self._migration_port = self._new_port(clock, MIGRATION_BEGIN_TIMEOUT_S)
        self.decode = DecodeHalf(
            engine.pool,
            self._migration_port,
            outbox,
            clock,
            config.max_num_seqs,
            digest_every=config.digest_every,
            sent_pairs=sent,
        )
        self._migration_port.bind(self.decode.migrator)
        self._port = self._new_port(clock, BEGIN_TIMEOUT_S)
        self.prefill = PrefillHalf(
            engine.pool,
            self._port,
            outbox,
            clock,
            next_step=lambda: engine.progress.num_begun + 1,
            take_over=self.decode.take_over,
            digest_every=config.digest_every,
            pairs=sent,
        )
        self._port.bind(self.prefill)
        self._prefix_port = GrpcPrefixPort(
            self.endpoint,
            self.prefill.imports,
            self._peers,
            self._mailbox,
            events,
            self._mover.verify,
            config.security,
        )
        self.prefill.imports.bind(self._prefix_port)
        self._exporter = PrefixExporter(engine.pool, self._links, self._mailbox, config.digest_every)
        self._reads = ReadDesk(self._links, self._mailbox, self.decode.receiver)
        halves = [self.prefill.worker_gone, self.decode.worker_gone]
        self._deaths = DeathDesk(self._peers, self._mailbox, events, halves)
        self._transfers = TransferLog(sent, self.decode.receiver.pairs, clock)
        self.loop = WorkerLoop(
            engine=engine,
            prefill=self.prefill,
            decode=self.decode,
            outbox=outbox,
            mailbox=self._mailbox,
            publish=self._publish,
            is_lending=lambda: not self._exporter.is_idle,
            on_inbound=inbound.set_writes,
            clock=clock,
            cost=CostTracker(self._cost_model),
            max_num_batched_tokens=config.max_num_batched_tokens,
            tpot_limit_s=config.slo_tpot_ms / 1000,
        )
        self.loop.begin_epoch(RoleState(config.role).epoch, config.role, clock.now_s())

    def _new_port(self, clock: Clock, begin_timeout_s: float) -> GrpcHandoffPort:
        """Carries the orders of one half as a source."""
        return GrpcHandoffPort(
            self.worker,
            self._peers,
            self._links,
            self._mailbox,
            self._events.loop,
            clock,
            on_corrupt=self._links.exclude,
            begin_timeout_s=begin_timeout_s,
        )

    async def _bind(self) -> WorkerEndpoint:
        """Binds the gRPC server to a free port; says where peers and routers will reach it."""
        self._server = new_server(self.config.security)
        port = bind_any_port(self._server, self.config.host, self.config.security)
        return WorkerEndpoint(self.worker, f"{self.config.host}:{port}")

    async def _serve(self) -> None:
        """Starts the services, and announces them."""
        identity = self._identity()
        experts = ExpertDesk(self.engine, self._mailbox, self.loop.keep_alive)
        names = NameDesk(self.engine.pool.name_log, self._mailbox)
        clock = SystemClock()
        self._roles = RoleBook(self.worker, self.config.role, clock, self._on_role)
        self._attach = AttachService(
            identity,
            self._mailbox,
            self.prefill,
            self.decode,
            experts,
            names,
            self._roles,
            clock=clock,
            on_gone=self._deaths.worker_gone,
            on_leave=self._begin_leaving,
        )
        handoffs = HandoffService(identity, self._mailbox, self.decode.receiver, self._mover.verify)
        links = LinkService(identity, self._peers, self._mover, self._reads, self._deaths)
        self._prefixes = PrefixService(identity, self._peers, self._mailbox, self._exporter, self._links.exclude)
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self._attach, self._server)
        handoff_pb2_grpc.add_HandoffServiceServicer_to_server(handoffs, self._server)
        handoff_pb2_grpc.add_LinkServiceServicer_to_server(links, self._server)
        prefix_pb2_grpc.add_PrefixServiceServicer_to_server(self._prefixes, self._server)
        await self._server.start()
        announcing = announce(self.endpoint, self.config.routers, self._attach, self.config.security)
        self._announcing = asyncio.create_task(announcing)

    async def _stop_server(self) -> None:
        self._announcing.cancel()
        await asyncio.gather(self._announcing, return_exceptions=True)
        self._attach.close()
        await self._server.stop(grace=1.0)
        await self._port.close()
        await self._migration_port.close()
        await self._prefix_port.close()
        await self._deaths.close()
        await self._reads.close()
        await self._links.close()
        await self._peers.close()

    def _identity(self) -> WorkerIdentity:
        return WorkerIdentity(
            endpoint=self.endpoint,
            fingerprint=self.engine.fingerprint,
            layout=self.engine.pool.layout,
            topology=self.config.topology,
            num_blocks=self.engine.pool.num_blocks,
            vocab_size=self.engine.config.vocab_size,
            max_num_seqs=self.config.max_num_seqs,
            max_model_len=self.engine.max_model_len,
            cost_model=self._cost_model,
            processes=self._processes,
        )

    def _on_role(self, state: RoleState, ordered_s: float) -> None:
        """Called on the event loop; orders that came before this one are in the mailbox already."""
        self._mailbox.post(partial(self.loop.take_role, state, ordered_s))

    def _begin_leaving(self, drain_timeout_s: float | None) -> None:
        """On the event loop: nothing is taken any more, routers hear why, and the loop comes to its end."""
        timeout_s = self.config.drain_timeout_s if drain_timeout_s is None else drain_timeout_s
        logger.info("worker %s leaves within %g s", self.worker, timeout_s)
        self._attach.publish_role(self._roles.leave())
        self._mailbox.post(partial(self.loop.leave, timeout_s))

    async def _finish(self) -> None:
        """Lets routers read to the end; peers that still call are let go."""
        self._announcing.cancel()
        self._attach.finish()
        await self._server.stop(grace=FINISH_TIMEOUT_S)

    def _publish(self, reports: dict[str, StepReport], load: WorkerLoad, kv_events: KvEvents | None) -> None:
        """Called from the loop after each step."""
        self._events.loop.call_soon_threadsafe(self._attach.publish, reports, load, kv_events)
        if (counts := self._transfers.take()) is not None:
            self._events.loop.call_soon_threadsafe(self._publish_transfers, counts)

    def _publish_transfers(self, counts: TransferCounts) -> None:
        self._attach.publish_transfers(self._links.report(counts))

    def _run_loop(self) -> None:
        try:
            take_turns_of(LONG_TURN_NS)
            self.loop.run()
            if self.loop.has_left:
                self._events.run(self._finish())
                depart()
        except BaseException:  # whatever it is, a worker without its loop must not look alive
            logger.critical("the worker's loop died", exc_info=True)
            die()
