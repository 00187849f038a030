"""The router process: HTTP and gRPC front ends over one dispatcher and one fleet."""

import contextlib
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
from baton.v1 import control_pb2_grpc, generate_pb2_grpc

from core.clock import SystemClock
from core.errors import ConfigError
from router.config import RouterConfig
from router.dashboard.feed import DashboardFeed
from router.dashboard.state import StateSource
from router.dispatch.dispatcher import FleetDispatcher
from router.fleet.fleet import Fleet
from router.fleet.observers import Observers
from router.http.app import build_app
from router.http.server import serve_http
from router.intake import Intake
from router.journal.journal import Journal
from router.journal.open_store import open_journal_store
from router.meter import RequestMeter
from router.roles.autopilot import Autopilot
from router.roles.controller import RoleController
from router.roles.director import RoleDirector
from router.roles.leadership import Leadership
from router.roles.orders import RoleOrders
from router.roles.rounds import keeping_roles
from router.roles.shared_switch import SharedSwitch
from router.roles.snapshot import Limits
from router.rpc.control_services import ControlService, MembershipService
from router.rpc.generate_service import GenerateService
from router.state.open_state import open_state
from router.state.store import StateStore
from router.text.tokenizer import TextCodec

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
    """

    http_port: int
    grpc_port: int
    cluster_port: int


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


@contextlib.asynccontextmanager
async def run_router(config: RouterConfig) -> AsyncIterator[RouterAddresses]:
    """Serves for as long as the context lasts. Port 0 in the settings takes a free one.

    Raises:
        CheckpointError: the model folder has no usable tokenizer.
        ConfigError: a port is taken, or `max_model_len` is over the model's context.
    """
    codec = load_codec(config)
    router = build_router(config)
    journal = build_journal(config, router, codec)
    feed, grpc_server = build_feed(config, router), build_grpc_server(config, journal, router, codec)
    cluster_server = build_cluster_server(router)
    app = build_app(config, router.dispatcher, codec, journal=journal, feed=feed, roles=router.director)
    # Left in reverse: HTTP lets its requests finish, gRPC too and takes no more registrations, then the workers go.
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(router.store.close)
        await stack.enter_async_context(router.fleet.running())
        await stack.enter_async_context(keeping_roles(router.dispatcher.movements, router.orders, router.autopilot))
        await stack.enter_async_context(journal.running())
        listener = stack.enter_context(bind_http(config.host, config.port))
        grpc_port = bind_grpc(grpc_server, config.host, config.grpc_port, "--grpc-port")
        cluster_port = bind_grpc(cluster_server, config.cluster_host, config.cluster_port, "--cluster-port")
        for server in (cluster_server, grpc_server):
            stack.push_async_callback(server.stop, STOP_GRACE_S)
            await server.start()
        await stack.enter_async_context(serve_http(app, listener))
        stack.callback(feed.close)  # before HTTP waits for its requests to finish: viewers never do
        stack.callback(journal.prepare_to_leave)  # those that do not finish are for other routers to go on with
        http_port = listener.getsockname()[1]
        logger.info("router listens on %s, HTTP %d, gRPC %d", config.host, http_port, grpc_port)
        logger.info("workers reach it on %s, port %d", config.cluster_host, cluster_port)
        yield RouterAddresses(http_port, grpc_port, cluster_port)


def build_router(config: RouterConfig) -> Router:
    """Puts together what does the work; nothing of it runs yet."""
    router_id, clock = uuid.uuid4().hex, SystemClock()
    limits = Limits(config.slo_ttft_ms / 1000, config.slo_tpot_ms / 1000)
    meter = RequestMeter(clock, limits)
    dispatcher = FleetDispatcher(
        request_timeout_s=config.request_timeout_s,
        placement_timeout_s=config.placement_timeout_s,
        max_attempts=config.max_attempts,
        meter=meter,
    )
    orders, store = RoleOrders(dispatcher.movements, clock), open_state(config.state, clock)
    fleet = Fleet(router_id, clock, config.heartbeat_timeout_s, Observers(dispatcher, orders))
    dispatcher.bind(fleet)
    orders.bind(fleet)
    autopilot = Autopilot(
        fleet=fleet,
        orders=orders,
        dispatcher=dispatcher,
        take_demand=meter.take_demand,
        controller=RoleController(),
        limits=limits,
        leadership=Leadership(store, router_id, clock),
        switch=SharedSwitch(store, AUTO_ROLES, default=config.auto_roles),
        clock=clock,
    )
    director = RoleDirector(fleet, orders, autopilot, clock)
    return Router(router_id, clock, store, meter, dispatcher, fleet, orders, autopilot, director)


def build_journal(config: RouterConfig, router: Router, codec: TextCodec) -> Journal:
    """What has requests answered; whoever runs it has it close its store."""
    store = open_journal_store(config.state, router.clock)
    return Journal(store, router.router_id, dispatcher=router.dispatcher, codec=codec, clock=router.clock)


def build_feed(config: RouterConfig, router: Router) -> DashboardFeed:
    """What the dashboard is told; whoever has it closes it."""
    can_operate = config.operator_key is not None
    source = StateSource(
        config.served_model_name, router.fleet, router.director, router.meter, time.time, can_operate=can_operate
    )
    return DashboardFeed(source)


def build_grpc_server(config: RouterConfig, journal: Journal, router: Router, codec: TextCodec) -> grpc.aio.Server:
    """A server with the services for clients and operators, on no port yet."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    intake = Intake(codec, config.served_model_name, config.max_model_len)
    generate = GenerateService(journal, codec, intake, config.request_timeout_s)
    generate_pb2_grpc.add_GenerateServiceServicer_to_server(generate, server)
    control = ControlService(config.served_model_name, router.fleet, router.dispatcher, router.director, router.clock)
    control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)
    return server


def build_cluster_server(router: Router) -> grpc.aio.Server:
    """A server with the services for the cluster's own processes, on no port yet."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    control_pb2_grpc.add_MembershipServiceServicer_to_server(MembershipService(router.fleet), server)
    return server


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


def bind_http(host: str, port: int) -> socket.socket:
    """A TCP socket bound to the HTTP port.

    Raises:
        ConfigError: the port is taken or the host is not one of this machine.
    """
    try:
        return socket.create_server((host, port), backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port") from error


def bind_grpc(server: grpc.aio.Server, host: str, port: int, flag: str) -> int:
    """Binds a gRPC server; returns the port. The flag is where another can be chosen, for the error.

    Raises:
        ConfigError: the port is taken or the host is not one of this machine.
    """
    try:
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {host}:{port} for gRPC; choose another with {flag}") from error
