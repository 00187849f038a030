"""A cluster that is to run: whether its settings, model, ports and memory go together on this machine."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from core.errors import BatonError
from core.request import HALVES, Role
from deploy.cluster import check_ports, router_settings
from deploy.config import OWN_REDIS, ServeConfig
from deploy.demo_model import demo_model_dir
from deploy.doctor.finding import Finding, fail, ok, warn
from deploy.doctor.machine import GIB, HERE
from deploy.doctor.state_store import state_findings
from deploy.machine import check_machine
from deploy.model_summary import has_weights
from deploy.own_redis import redis_program
from deploy.planning.memory import PlanRequest, plan_memory
from deploy.planning.shape import read_shape
from deploy.state_setting import read_state
from engine.config import ModelConfig
from engine.kernels.build import KernelsUnavailableError, build_library

PROCESS_BYTES = 400_000_000  # of a rank beside weights and KV: Python, torch and its buffers
CLUSTER_BYTES = 1_000_000_000  # of Ray and a router


def plan_findings(config: ServeConfig) -> Iterator[Finding]:
    """All checks of a planned cluster; nothing is started."""
    model_dir = config.model or demo_model_dir()
    if not has_weights(model_dir):
        if config.model is not None:
            yield fail("model", str(model_dir), "no weights", "pass --model a folder with *.safetensors files")
        else:
            yield ok("model", "demo", "not built yet; `baton serve` builds it (93 MB to fetch)")
    else:
        yield from model_findings(config, model_dir)
    yield from router_findings(config, model_dir)
    if config.ray_address is None:  # else its nodes are judged when Ray has been asked which they are
        yield checked("devices", HERE, lambda: check_machine(config), f"room for {config.num_ranks} rank(s)")
    yield kernels_finding(config)
    yield from planned_state_findings(config)


def router_findings(config: ServeConfig, model_dir: Path) -> Iterator[Finding]:
    """Whether routers can be set up like this, and their ports are free; without a model, all but what it says."""
    asked = replace(config, state=OWN_REDIS, state_file=None)  # the state has a check of its own
    if not has_weights(model_dir):
        model_dir, asked = Path(), replace(asked, max_model_len=config.max_model_len or 1)
    try:
        settings = router_settings(asked, model_dir)
    except BatonError as error:
        yield failed("settings", config.model_name, error)
        return
    yield checked("ports", config.host, lambda: check_ports(settings, config.routers), "free")


def planned_state_findings(config: ServeConfig) -> Iterator[Finding]:
    """Whether there is the store of state that `baton serve` would take, wherever its setting comes from."""
    try:
        setting = read_state(config, os.environ)
    except BatonError as error:
        yield failed("state", config.model_name, error)
        return
    if setting == OWN_REDIS:
        yield checked("state", f"--state {OWN_REDIS}", redis_program, "there is a server to start")
    yield from state_findings(setting)


def model_findings(config: ServeConfig, model_dir: Path) -> Iterator[Finding]:
    """Whether a checkpoint can be served like this, and memory suffices."""
    name = config.model_name
    model = checked("model", name, lambda: config.check_model(ModelConfig.from_dir(model_dir)), str(model_dir))
    yield model
    if model.remedy:
        return
    if config.device == "cpu" and config.ray_address is None:
        yield memory_finding(needed_bytes(config, model_dir), psutil.virtual_memory().available)


def checked(check: str, subject: str, look: Callable[[], object], detail: str) -> Finding:
    """A check that raises what is wrong, and what to do, in one message."""
    try:
        look()
    except BatonError as error:
        return failed(check, subject, error)
    return ok(check, subject, detail)


def failed(check: str, subject: str, error: BatonError) -> Finding:
    """What kept a check from passing."""
    return fail(check, subject, error.message, "as the message says, then run `baton doctor plan` again")


def needed_bytes(config: ServeConfig, model_dir: Path) -> int:
    """Memory of all workers together, on a CPU: weights of each rank, each worker's KV pool, and the processes."""
    shape = read_shape(model_dir / "config.json")
    total = CLUSTER_BYTES
    for role in HALVES:
        number = config.prefill if role is Role.PREFILL else config.decode
        topology = config.topology_of(role)
        plan = plan_memory(shape, PlanRequest(topology, "none", None, device_bytes=0, context=None))
        of_ranks = topology.world_size * (plan.total_weight_bytes + PROCESS_BYTES)
        total += number * (of_ranks + int((config.kv_cache_gb + config.kv_host_gb) * GIB))
    return total


def memory_finding(needed: int, available: int) -> Finding:
    """Whether everything fits."""
    detail = f"about {needed / GIB:.1f} GiB needed, {available / GIB:.1f} GiB available"
    if needed > available:
        return warn("memory", HERE, detail, "lower --kv-cache-gb, --prefill or --decode, or add memory")
    return ok("memory", HERE, detail)


def kernels_finding(config: ServeConfig) -> Finding:
    """Whether the engine's own kernels can be had; compiles them when they are not yet."""
    if config.device != "cpu" or config.kernels == "torch":
        return ok("kernels", HERE, "torch, as asked for")
    try:
        build_library()
    except KernelsUnavailableError as error:
        say = fail if config.kernels == "native" else warn
        return say("kernels", HERE, f"native ones cannot be had: {error}", "as it says; --kernels torch does without")
    return ok("kernels", HERE, "native (for bfloat16)")
