"""From settings to processes that are kept running: who starts them, looks after them and tells routers of them."""

import contextlib
from collections.abc import Iterator, Sequence

from core.clock import SystemClock
from core.ids import WorkerId
from core.members import MemberKind, MemberState, MemberStatus
from deploy.all_routers import AllRouters
from deploy.cores import seats_of
from deploy.fence_client import FenceClient
from deploy.keeper import Keeper
from deploy.ray_members import RayRouter, RayWorker, resource_of
from deploy.ray_nodes import NodeFacts, RayNodes
from deploy.ray_session import RaySession
from deploy.router_rounds import RouterRounds
from deploy.security import check_cluster_host
from deploy.strangers import Strangers
from deploy.supervisor import Kill, Supervisor, tell_gone
from router.config import RouterConfig
from router.fleet.awake_clock import AwakeClock
from rpc.security import OPEN, RpcSecurity
from worker.config import WorkerConfig


def keeper_of(
    routers: Sequence[RouterConfig], workers: Sequence[WorkerConfig], session: RaySession, nodes: RayNodes
) -> Keeper:
    """Finds room for all workers, and puts routers and workers into the hands of a keeper; none is started yet.

    Args:
        routers: settings of each, with a cluster port.
        workers: settings of each, as of its rank 0; all take the same resource.
        session: Ray.
        nodes: its machines.

    Raises:
        ConfigError: there is no room, or a machine on which they cannot run.
        UnavailableError: a machine does not answer.
    """
    security = routers[0].cluster_security
    if not session.is_own:
        check_nodes(nodes.check(resource_of(workers[0])), session, security)
    placed = [RayWorker(worker, session, nodes) for worker in workers]
    sizes = [worker.topology.world_size for worker in workers]
    seats = seats_of([(worker.wait_placed(), size) for worker, size in zip(placed, sizes, strict=True)])
    for worker, seat in zip(placed, seats, strict=True):
        worker.take_seat(seat)
    members = [RayRouter(f"router-{number}", router, session, nodes) for number, router in enumerate(routers)]
    keeper: Keeper

    def on_dead(worker: WorkerId) -> None:
        tell_gone(running_routers(keeper, security), worker)

    keeper = Keeper([*members, *placed], on_dead, SystemClock())
    return keeper


def check_nodes(nodes: Sequence[NodeFacts], session: RaySession, security: RpcSecurity) -> None:
    """Makes sure that the cluster's processes know each other on this machine and on those of workers.

    Raises:
        ConfigError: a certificate is not for one of the machines.
    """
    if security.tls is not None:
        for host in sorted({session.host, *(node.address for node in nodes)}):
            check_cluster_host(security.tls, host)


def running_routers(keeper: Keeper, security: RpcSecurity) -> AllRouters:
    """The routers that run, whenever they are asked."""

    def fences() -> list[FenceClient]:
        return [
            FenceClient(member.address, security, member.processes)
            for member in keeper.statuses()
            if member.kind is MemberKind.ROUTER and member.state is MemberState.RUNNING
        ]

    return AllRouters(fences, Strangers(keeper.running_workers, AwakeClock(SystemClock())))


@contextlib.contextmanager
def keeping(keeper: Keeper, kill: Kill, hang_timeout_s: float, security: RpcSecurity = OPEN) -> Iterator[None]:
    """While the context lasts, what died is started again, and what hangs is killed, to be started again.

    Args:
        keeper: has started everything.
        kill: ends processes.
        hang_timeout_s: silence after which a router or worker is killed; 0 kills none.
        security: of the routers' cluster ports.
    """

    def tell(address: str, members: Sequence[MemberStatus]) -> None:
        FenceClient(address, security).report_members(members)

    with contextlib.ExitStack() as stack:
        stack.enter_context(keeper.running())
        stack.enter_context(RouterRounds(keeper.statuses, tell, kill, hang_timeout_s, SystemClock()).running())
        if hang_timeout_s:
            stack.enter_context(Supervisor(running_routers(keeper, security), kill, hang_timeout_s).running())
        yield
