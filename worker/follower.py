"""A rank of a worker that is not its first: computes its part of every step, moves its part of every handoff.

It has no halves, no loop and no router: rank 0 has, and leads.
"""

import logging
import threading

from baton.v1 import rank_pb2_grpc

from core.crash import die
from rpc.security import RpcSecurity
from rpc.servers import new_server
from worker.config import WorkerConfig
from worker.event_thread import EventThread
from worker.ports import bind_any_port
from worker.rank import open_rank
from worker.rank_channel import SERVER_OPTIONS
from worker.rank_service import RankService
from worker.turns import LONG_TURN_NS, take_turns_of

STOP_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)


class FollowerProcess:
    """Starts on construction, when all ranks of the worker do, and serves until its leader or `stop` ends it.

    Attributes:
        endpoint: None: routers and peers talk to rank 0.

    Args:
        config: of this rank.
        store_address: where the ranks meet.

    Raises:
        CheckpointError: the model cannot be served.
        ConfigError: a setting cannot work.
        UnavailableError: the other ranks did not come.
    """

    endpoint = None

    def __init__(self, config: WorkerConfig, store_address: str) -> None:
        assert config.rank > 0, "rank 0 leads; it is a WorkerProcess"
        self._rank = open_rank(config, store_address, on_crash=die)
        self._events = EventThread("control")
        address = self._events.run(self._start_server(config.host, config.security))
        self._rank.communicator.gather_object(address)
        self._engine_thread = threading.Thread(target=self._follow, name="engine", daemon=True)
        self._engine_thread.start()
        logger.info("%s of incarnation %d serves at %s", config.rank_name, self._rank.worker.incarnation, address)

    def leave(self) -> None:
        """Does nothing: this rank is needed until its leader has left, and ends with it."""

    def stop(self) -> None:
        """Ends threads and registrations; the leader has stopped before."""
        self._engine_thread.join(STOP_TIMEOUT_S)
        self._events.run(self._server.stop(grace=None))
        self._events.stop()
        self._rank.mover.close()

    async def _start_server(self, host: str, security: RpcSecurity) -> str:
        self._server = new_server(security, SERVER_OPTIONS)
        port = bind_any_port(self._server, host, security)
        rank_pb2_grpc.add_RankServiceServicer_to_server(RankService(self._rank.mover, on_lost=die), self._server)
        await self._server.start()
        return f"{host}:{port}"

    def _follow(self) -> None:
        try:
            take_turns_of(LONG_TURN_NS)
            self._rank.engine.follow()
        except BaseException:  # whatever it is, the other ranks cannot go on either
            logger.critical("this rank's engine died", exc_info=True)
            die()
