"""The router process: HTTP and gRPC front ends over one dispatcher and one fleet."""

import asyncio
import contextlib
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
from baton.v1 import control_pb2_grpc, generate_pb2_grpc

from core.clock import SystemClock
from core.errors import ConfigError, DrainingError
from core.members import MemberKind, MemberState
from router.admission.admission import AdmissionLimits
from router.auth.gate import Gate
from router.auth.key_ring import KeyRing
from router.auth.metered import MeteredDispatcher
from router.auth.rpc_gate import RpcGate
from router.config import RouterConfig
from router.dashboard.feed import DashboardFeed
from router.dashboard.state import StateSource
from router.departure import RouterDeparture
from router.dispatch.dispatcher import FleetDispatcher
from router.fleet.fleet import Fleet
from router.fleet.observers import Observers
from router.generation import Dispatcher
from router.http.app import build_app
from router.http.draining import DrainingApp
from router.http.observed import ObservedCalls
from router.http.server import serve_http
from router.intake import Intake
from router.journal.journal import Journal
from router.journal.open_store import open_journal_store
from router.meter import RequestMeter
from router.observe.metrics_server import serving_metrics
from router.observe.observation import Observation, build_observation
from router.probe import PairProbes
from router.roles.autopilot import Autopilot
from router.roles.controller import RoleController
from router.roles.director import RoleDirector
from router.roles.leadership import Leadership
from router.roles.orders import RoleOrders
from router.roles.restarts import WorkerRestarts
from router.roles.rounds import keeping_roles
from router.roles.router_restarts import Restarts, RouterRestarts
from router.roles.shared_switch import SharedSwitch
from router.roles.snapshot import Limits
from router.rpc.control_services import ControlService, MembershipService
from router.rpc.generate_service import GenerateService
from router.rpc.observed import ObservedRpcs
from router.rpc.peer_router import PeerRouter
from router.state.open_state import open_state
from router.state.store import StateStore
from router.text.tokenizer import TextCodec
from rpc.limits import MAX_PUBLIC_CALLS, PUBLIC_SERVER_OPTIONS
from rpc.security import TlsFiles
from rpc.servers import bind, new_server

STOP_GRACE_S = 1.0  # for gRPC calls under way when the router stops
LISTEN_BACKLOG = 1024
AUTO_ROLES = "roles/auto"  # key of the flag in the state store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RouterAddresses:
    """Where a running router listens.

    Attributes:
        http_port: of the HTTP API.
        grpc_port: of the gRPC services for clients and operators.
        cluster_port: of those for workers and their supervisor.
        metrics_port: of the metrics; None when there are none.
    """

    http_port: int
    grpc_port: int
    cluster_port: int
    metrics_port: int | None = None


@dataclass(frozen=True, slots=True)
class Router:
    """The parts of a router behind its front ends.

    Attributes:
        router_id: of this process alone.
        clock: of all of them.
        store: what it shares with other routers; whoever has it closes it.
        meter: what requests experience.
        dispatcher: has answers generated.
        fleet: the workers.
        orders: what workers are told about roles.
        autopilot: has the controller decide.
        director: carries out what operators order.
        departure: its way out.
        restarts: of workers and routers.
        observation: what hears of its requests.
        probes: try pairs of workers.
    """

    router_id: str
    clock: SystemClock
    store: StateStore
    meter: RequestMeter
    dispatcher: FleetDispatcher
    fleet: Fleet
    orders: RoleOrders
    autopilot: Autopilot
    director: RoleDirector
    departure: RouterDeparture
    restarts: Restarts
    observation: Observation
    probes: PairProbes


@contextlib.asynccontextmanager
async def run_router(
    config: RouterConfig, departure: RouterDeparture | None = None
) -> AsyncIterator[RouterAddresses]:
    """Serves for as long as the context lasts. Port 0 in the settings takes a free one.

    On leaving, no connection is accepted any more, and requests under way may end as `departure` says.

    Args:
        config: the settings.
        departure: set in motion when somebody orders the router to leave, for the caller to see; None for one of the
            settings that nobody sees.

    Raises:
        CheckpointError: the model folder has no usable tokenizer.
        ConfigError: a port is taken, `max_model_len` is over the model's context, or the API keys cannot be read.
    """
    departure = RouterDeparture(config.drain_timeout_s) if departure is None else departure
    codec = load_codec(config)
    router = build_router(config, codec.vocab_size, departure)
    gate, metered = build_gate(config, router.clock), MeteredDispatcher(router.dispatcher)
    journal = build_journal(config, router, codec, metered)
    feed, grpc_server = build_feed(config, router, gate), build_grpc_server(config, router, codec, gate, journal)
    cluster_server = build_cluster_server(config, router)
    app = build_app(config, metered, codec, journal=journal, feed=feed, roles=router.director, gate=gate)
    # Left in reverse: HTTP lets its requests finish, gRPC too and takes no more registrations, then the workers go.
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(router.store.close)
        metrics_port = await stack.enter_async_context(telling(config, router.observation))
        await stack.enter_async_context(router.fleet.running())
        await stack.enter_async_context(keeping_roles(router.dispatcher.movements, router.orders, router.autopilot))
        await stack.enter_async_context(journal.running())
        stack.push_async_callback(router.restarts.close)
        listener = stack.enter_context(bind_http(config.host, config.port, reuse_port=config.reuse_port))
        grpc_port = bind_grpc(grpc_server, config.host, config.grpc_port, "--grpc-port", config.tls)
        cluster_tls = config.cluster_security.tls
        cluster_port = bind_grpc(
            cluster_server, config.cluster_host, config.cluster_port, "--cluster-port", cluster_tls
        )
        for server in (cluster_server, grpc_server):
            stack.push_async_callback(server.stop, STOP_GRACE_S)
            await server.start()
        leaving_app = DrainingApp(ObservedCalls(app, router.observation.calls), departure)
        stop_listening = await stack.enter_async_context(serve_http(leaving_app, listener, tls=config.tls))
        stack.push_async_callback(let_requests_end, router, journal, grpc_server, stop_listening)
        stack.callback(feed.close)  # before HTTP waits for its requests to finish: viewers never do
        http_port = listener.getsockname()[1]
        logger.info("router listens on %s, HTTP %d, gRPC %d", config.host, http_port, grpc_port)
        logger.info("workers reach it on %s, port %d", config.cluster_host, cluster_port)
        yield RouterAddresses(http_port, grpc_port, cluster_port, metrics_port)


@contextlib.asynccontextmanager
async def telling(config: RouterConfig, observation: Observation) -> AsyncIterator[int | None]:
    """While the context lasts, metrics are served, at the port that it gives; what is left of spans is sent at last.

    Raises:
        ConfigError: the port is taken.
    """
    async with contextlib.AsyncExitStack() as stack:
        if observation.tracer is not None:
            stack.push_async_callback(asyncio.to_thread, observation.tracer.close)
        if observation.registry is None or config.metrics_port is None:
            yield None
            return
        listener = stack.enter_context(bind_http(config.metrics_host, config.metrics_port, "--metrics-port"))
        await stack.enter_async_context(serving_metrics(observation.registry, listener))
        port = listener.getsockname()[1]
        logger.info("metrics are at http://%s:%d/metrics", config.metrics_host, port)
        yield port


async def let_requests_end(
    router: Router, journal: Journal, grpc_server: grpc.aio.Server, stop_listening: Callable[[], None]
) -> None:
    """Takes no more connections and waits for requests under way; those that take too long are told so.

    Under way is also a call that is no request yet, or whose client has not read all of its answer.
    """
    departure, dispatcher, calls = router.departure, router.dispatcher, router.observation.calls
    departure.order()
    stop_listening()
    # Not before the drain is over: what the server cancels by itself is not left to other routers.
    stopping = asyncio.create_task(grpc_server.stop(departure.left_s + STOP_GRACE_S))
    logger.info("the router leaves; %d request(s) have %g s", dispatcher.num_active, departure.left_s)
    await departure.drain(lambda: max(dispatcher.num_active, calls.num_open))
    given = f"{departure.timeout_s:g} s"
    journal.prepare_to_leave()  # requests that have not ended are for other routers to go on with
    dispatcher.end_all(DrainingError(f"the router stops, and the answer had not ended after {given}; send it again"))
    await asyncio.gather(stopping, grpc_server.stop(STOP_GRACE_S))


def build_router(config: RouterConfig, vocab_size: int, departure: RouterDeparture) -> Router:
    """Puts together what does the work; nothing of it runs yet. Token ids are below `vocab_size`."""
    clock, router_id = SystemClock(), uuid.uuid4().hex
    limits = Limits(config.slo_ttft_ms / 1000, config.slo_tpot_ms / 1000)
    meter = RequestMeter(clock, limits)
    observation = build_observation(config, router_id, clock, limits, meter)
    dispatcher = FleetDispatcher(
        request_timeout_s=config.request_timeout_s,
        placement_timeout_s=config.placement_timeout_s,
        max_attempts=config.max_attempts,
        watch=observation.watch,
        limits=AdmissionLimits(config.admit_ttft_ms / 1000, config.max_waiting),
        busy_s=time.thread_time,
    )
    orders, store = RoleOrders(dispatcher.movements, clock), open_state(config.state, clock)
    probes = PairProbes(vocab_size, clock)
    observers = Observers(dispatcher, orders, probes)
    fleet = Fleet(router_id, clock, config.heartbeat_timeout_s, observers, config.cluster_security)
    dispatcher.bind(fleet)
    orders.bind(fleet)
    leadership = Leadership(store, router_id, clock)
    autopilot = Autopilot(
        fleet=fleet,
        orders=orders,
        dispatcher=dispatcher,
        take_demand=meter.take_demand,
        controller=RoleController(),
        limits=limits,
        leadership=leadership,
        switch=SharedSwitch(store, AUTO_ROLES, default=config.auto_roles),
        clock=clock,
    )
    director = RoleDirector(fleet, orders, autopilot, clock)
    restarts = Restarts(
        WorkerRestarts(fleet, orders, director.audit, clock, config.drain_timeout_s),
        RouterRestarts(
            router_id,
            departure,
            num_requests=lambda: dispatcher.num_active,
            others=lambda: other_routers(config, fleet),
            audit=director.audit,
            clock=clock,
        ),
    )
    observation.register(dispatcher, leadership, clock)
    return Router(
        router_id,
        clock,
        store,
        meter,
        dispatcher,
        fleet,
        orders,
        autopilot,
        director,
        departure,
        restarts,
        observation,
        probes,
    )


def build_journal(config: RouterConfig, router: Router, codec: TextCodec, dispatcher: Dispatcher) -> Journal:
    """What has requests answered by a dispatcher for clients; whoever runs it has it close its store."""
    store = open_journal_store(config.state, router.clock)
    return Journal(store, router.router_id, dispatcher=dispatcher, codec=codec, clock=router.clock)


def other_routers(config: RouterConfig, fleet: Fleet) -> list[PeerRouter]:
    """The routers that run beside this one, as the supervisor last said."""
    here = f"{config.cluster_host}:{config.cluster_port}"
    return [
        PeerRouter(member.name, member.address, config.cluster_security)
        for member in fleet.members
        if member.kind is MemberKind.ROUTER and member.state is MemberState.RUNNING and member.address != here
    ]


def build_gate(config: RouterConfig, clock: SystemClock) -> Gate:
    """Who may do what at this router.

    Raises:
        ConfigError: the file of API keys cannot be used.
    """
    keys = KeyRing(
        config.api_keys_file,
        operator_key=config.operator_key,
        console_key=config.console_key,
        num_routers=config.num_routers,
        clock=clock,
    )
    return Gate(keys, clock)


def build_feed(config: RouterConfig, router: Router, gate: Gate) -> DashboardFeed:
    """What the dashboard is told; whoever has it closes it."""
    can_operate = gate.has_operators
    source = StateSource(
        config.served_model_name, router.fleet, router.director, router.meter, time.time, can_operate=can_operate
    )
    return DashboardFeed(source)


def build_grpc_server(
    config: RouterConfig, router: Router, codec: TextCodec, gate: Gate, journal: Journal
) -> grpc.aio.Server:
    """A server with the services for clients and operators, on no port yet; the journal is for clients."""
    server = new_server(
        options=PUBLIC_SERVER_OPTIONS,
        max_message_bytes=config.max_body_bytes,
        max_calls=MAX_PUBLIC_CALLS,
        is_port_shared=config.reuse_port,
        interceptors=[ObservedRpcs(router.observation.calls), RpcGate(gate)],
    )
    intake = Intake(codec, config.served_model_name, config.max_model_len)
    generate = GenerateService(journal, codec, intake, config.request_timeout_s)
    generate_pb2_grpc.add_GenerateServiceServicer_to_server(generate, server)
    add_control(config, router, server)
    return server


def build_cluster_server(config: RouterConfig, router: Router) -> grpc.aio.Server:
    """A server with the services for the cluster's own processes, on no port yet."""
    server = new_server(config.cluster_security)
    membership = MembershipService(router.fleet, router.departure)
    control_pb2_grpc.add_MembershipServiceServicer_to_server(membership, server)
    add_control(config, router, server)
    return server


def add_control(config: RouterConfig, router: Router, server: grpc.aio.Server) -> None:
    """Adds the service for operators, which the cluster's own processes are, too."""
    control = ControlService(
        config.served_model_name,
        router.fleet,
        router.dispatcher,
        router.director,
        router.clock,
        router.probes,
        restarts=router.restarts,
    )
    control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)


def load_codec(config: RouterConfig) -> TextCodec:
    """The model's tokenizer and chat template.

    Raises:
        CheckpointError: the model folder has no usable tokenizer.
        ConfigError: `max_model_len` is over the model's context.
    """
    codec = TextCodec.load(config.model_dir)
    if codec.context_length is not None and config.max_model_len > codec.context_length:
        raise ConfigError(
            f"max_model_len is {config.max_model_len}; the model's context is {codec.context_length} tokens: "
            "lower --max-model-len"
        )
    return codec


def bind_http(host: str, port: int, flag: str = "--port", *, reuse_port: bool = False) -> socket.socket:
    """A TCP socket bound to an HTTP port. The flag is where another can be chosen, for the error.

    With `reuse_port` others may bind it as well, if all of them say so.

    Raises:
        ConfigError: the port is taken or the host is not one of this machine.
    """
    try:
        return socket.create_server((host, port), backlog=LISTEN_BACKLOG, reuse_port=reuse_port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror}); choose another with {flag}") from error


def bind_grpc(server: grpc.aio.Server, host: str, port: int, flag: str, tls: TlsFiles | None) -> int:
    """Binds a gRPC server; returns the port. The flag is where another can be chosen, for the error.

    Raises:
        ConfigError: the port is taken, the host is not one of this machine, or a certificate cannot be used.
    """
    try:
        return bind(server, f"{host}:{port}", tls)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port} for gRPC; choose another with {flag}") from error
