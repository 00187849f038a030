"""The worker process: one engine, both halves, the loop, and the gRPC services around them."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import torch
import uvloop
from baton.v1 import handoff_pb2_grpc, worker_pb2_grpc

from core.clock import SystemClock
from core.crash import die
from core.errors import ConfigError
from core.events import WorkerLoad
from core.ids import WorkerEndpoint, WorkerId
from decode_worker.half import DecodeHalf
from engine.kv.pool import BlockPool
from kvtransfer.mover import BlockMover
from kvtransfer.transport import Transport
from prefill_worker.half import PrefillHalf
from worker.announcer import announce
from worker.attach_service import AttachService
from worker.config import WorkerConfig
from worker.cost.startup import start_cost
from worker.cost.tracker import CostTracker
from worker.engine_factory import load_engine
from worker.handoff_client import GrpcHandoffPort
from worker.handoff_service import HandoffService
from worker.identity import WorkerIdentity
from worker.loop import WorkerLoop
from worker.mailbox import Mailbox
from worker.peers import Peers
from worker.report import StepOutbox, StepReport

MAX_MESSAGE_BYTES = 32 * 1024 * 1024  # a 131k-token prompt is 0.4 MB on the wire; this leaves room for any
STOP_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)

TransportFactory = Callable[[WorkerId, BlockPool], Transport]


class WorkerProcess:
    """Starts on construction and serves until `stop`.

    Args:
        config: everything that can be set.
        make_transport: how KV moves; None takes NIXL.

    Raises:
        CheckpointError: the model cannot be served.
        ConfigError: a setting cannot work.
    """

    def __init__(self, config: WorkerConfig, make_transport: TransportFactory | None = None) -> None:
        pin_to_cores(config.cpu_ids)
        self.config = config
        self.worker = WorkerId(config.name, time.time_ns())
        self.engine = load_engine(config)
        transport = (make_transport or nixl_transport)(self.worker, self.engine.pool)
        self._mover = BlockMover(transport, on_crash=die)
        self._mailbox = Mailbox()
        self._events = uvloop.new_event_loop()
        self._threads = [threading.Thread(target=self._events.run_forever, name="control", daemon=True)]
        self._threads[0].start()
        self._peers = Peers(self.worker, self.engine.fingerprint, self.engine.pool.layout, self._mover)
        self._assemble()
        self.endpoint = self._on_events(self._start_server())
        self._threads.append(threading.Thread(target=self._run_loop, name="engine", daemon=True))
        self._threads[1].start()
        logger.info("worker %s serves %s at %s", self.worker, config.model_dir, self.endpoint.address)

    def stop(self) -> None:
        """Ends streams, threads and registrations; work in progress is dropped."""
        self.loop.stop()
        self._threads[1].join(STOP_TIMEOUT_S)
        self._on_events(self._stop_server())
        self._events.call_soon_threadsafe(self._events.stop)
        self._threads[0].join(STOP_TIMEOUT_S)
        self._mover.close()

    def _assemble(self) -> None:
        """Connects halves, ports and loop."""
        clock, outbox = SystemClock(), StepOutbox()
        self._cost_model = start_cost(self.engine, self.config.max_num_batched_tokens, self.config.max_num_seqs)
        self._port = GrpcHandoffPort(self.worker, self._peers, self._mover, self._mailbox, self._events, clock)
        self.prefill = PrefillHalf(self.engine.pool, self._port, outbox, clock)
        self.decode = DecodeHalf(self.engine.pool, outbox, clock, self.config.max_num_seqs)
        self._port.bind(self.prefill)
        self.loop = WorkerLoop(
            engine=self.engine,
            prefill=self.prefill,
            decode=self.decode,
            outbox=outbox,
            mailbox=self._mailbox,
            publish=self._publish,
            on_inbound=self._mover.set_inbound,
            clock=clock,
            cost=CostTracker(self._cost_model),
            max_num_batched_tokens=self.config.max_num_batched_tokens,
        )

    async def _start_server(self) -> WorkerEndpoint:
        """Binds the gRPC server to a free port and starts announcing it."""
        options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options)
        try:
            port = self._server.add_insecure_port(f"{self.config.host}:0")
        except RuntimeError as error:
            raise ConfigError(f"host is {self.config.host!r}; no port can be bound there: {error}") from error
        identity = self._identity(WorkerEndpoint(self.worker, f"{self.config.host}:{port}"))
        self._attach = AttachService(identity, self._mailbox, self.prefill, self.decode)
        handoffs = HandoffService(identity, self._mailbox, self.decode, self._mover)
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self._attach, self._server)
        handoff_pb2_grpc.add_HandoffServiceServicer_to_server(handoffs, self._server)
        await self._server.start()
        self._announcing = asyncio.create_task(announce(identity.endpoint, self.config.routers, self._attach))
        return identity.endpoint

    async def _stop_server(self) -> None:
        self._announcing.cancel()
        await asyncio.gather(self._announcing, return_exceptions=True)
        self._attach.close()
        await self._server.stop(grace=1.0)
        await self._port.close()
        await self._peers.close()

    def _identity(self, endpoint: WorkerEndpoint) -> WorkerIdentity:
        return WorkerIdentity(
            endpoint=endpoint,
            role=self.config.role,
            role_epoch=1,
            fingerprint=self.engine.fingerprint,
            layout=self.engine.pool.layout,
            num_blocks=self.engine.pool.num_blocks,
            vocab_size=self.engine.config.vocab_size,
            max_num_seqs=self.config.max_num_seqs,
            max_model_len=self.engine.max_model_len,
            cost_model=self._cost_model,
        )

    def _publish(self, reports: dict[str, StepReport], load: WorkerLoad) -> None:
        """Called from the loop after each step."""
        self._events.call_soon_threadsafe(partial(self._attach.publish, reports, load))

    def _run_loop(self) -> None:
        try:
            self.loop.run()
        except BaseException:  # whatever it is, a worker without its loop must not look alive
            logger.critical("the worker's loop died", exc_info=True)
            die()

    def _on_events(self, coroutine: Any) -> Any:  # noqa: ANN401 - returns what the coroutine returns
        return asyncio.run_coroutine_threadsafe(coroutine, self._events).result()


def nixl_transport(worker: WorkerId, pool: BlockPool) -> Transport:
    """The default transport; imported here because the import takes half a second, and reads its log level."""
    os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")
    from kvtransfer.nixl_transport import NixlTransport  # noqa: PLC0415

    return NixlTransport(worker, pool)


def pin_to_cores(cpu_ids: tuple[int, ...]) -> None:
    """Pins the process to cores, with one torch thread each; does nothing without any.

    Raises:
        ConfigError: a core does not exist or may not be used.
    """
    if not cpu_ids:
        return
    try:
        os.sched_setaffinity(0, cpu_ids)
    except OSError as error:
        raise ConfigError(f"cannot pin to cores {cpu_ids}: {error}; this machine has {os.cpu_count()}") from error
    torch.set_num_threads(len(cpu_ids))
