"""A cluster that runs: what its router says of it, and what comes of a prompt sent along every pair of workers."""

import itertools
import time
from collections.abc import Iterator

from baton.v1 import common_pb2, control_pb2

from core.errors import BatonError
from deploy.commands.status import describe_topology
from deploy.doctor.clocks import clock_finding
from deploy.doctor.finding import Finding, fail, ok, warn
from deploy.status_client import control_stub, get_status
from router.hello_wire import hello_from_proto

PROBE_TIMEOUT_S = 60.0  # the router gives up before
GB = 1e9
MS_PER_S = 1000
TAKES_PROMPTS = (common_pb2.ROLE_PREFILL, common_pb2.ROLE_MIXED)
TAKES_TOKENS = (common_pb2.ROLE_DECODE, common_pb2.ROLE_MIXED)


def cluster_findings(grpc_address: str, *, is_probing: bool) -> Iterator[Finding]:
    """All checks of a running cluster; probing sends a prompt along every pair of a prefill and a decode worker.

    Raises:
        UnreachableError: the router does not answer.
    """
    asked_s = time.time()
    status = get_status(grpc_address)
    now_s = (asked_s + time.time()) / 2
    yield readiness_finding(status)
    yield clock_finding("router", status.unix_s - now_s)
    for worker in status.workers:
        yield clock_finding(worker.hello.endpoint.worker.name, worker.clock_skew_s)
    yield from version_findings(status)
    yield from agreement_findings(status)
    for prefill, decode in pairs(status):
        yield probe_finding(grpc_address, prefill, decode) if is_probing else layout_finding(prefill, decode)


def readiness_finding(status: control_pb2.GetStatusResponse) -> Finding:
    """Whether requests can be served."""
    if status.unready_reason:
        return fail(
            "ready", status.model, status.unready_reason, "see the workers' logs; `baton serve` names their folder"
        )
    return ok("ready", status.model, f"{len(status.workers)} workers, {status.active_requests} request(s) active")


def version_findings(status: control_pb2.GetStatusResponse) -> Iterator[Finding]:
    """Workers beside the router: one version of each package."""
    ours = dict(status.versions)
    for worker in status.workers:
        theirs = dict(worker.hello.versions)
        name = worker.hello.endpoint.worker.name
        different = [
            f"{package} {theirs.get(package, 'none')} (router: {ours.get(package, 'none')})"
            for package in sorted(ours.keys() | theirs.keys())
            if ours.get(package) != theirs.get(package)
        ]
        if different:
            yield warn("version", name, "; ".join(different), "install the same versions on every node")
        else:
            yield ok(
                "version", name, ", ".join(f"{package} {version}" for package, version in sorted(theirs.items()))
            )


def agreement_findings(status: control_pb2.GetStatusResponse) -> Iterator[Finding]:
    """One model, and KV that every worker understands."""
    hellos = [hello_from_proto(worker.hello) for worker in status.workers]
    differences = [
        f"{one.endpoint.worker} and {other.endpoint.worker}: {difference}"
        for one, other in itertools.combinations(hellos, 2)
        if (difference := one.difference(other))
    ]
    for difference in differences:
        yield fail("model", status.model, difference, "serve one checkpoint with one --dtype and --max-model-len")
    if hellos and not differences:
        dtype = dict(hellos[0].layout).get("dtype", "?")
        yield ok("model", status.model, f"fingerprint {hellos[0].fingerprint}, KV in {dtype}, on all workers")


def pairs(
    status: control_pb2.GetStatusResponse,
) -> Iterator[tuple[control_pb2.WorkerStatus, control_pb2.WorkerStatus]]:
    """Workers that KV goes between, as roles are now; not to themselves."""
    for source, target in itertools.permutations(status.workers, 2):
        if source.hello.role_state.role in TAKES_PROMPTS and target.hello.role_state.role in TAKES_TOKENS:
            yield source, target


def layout_finding(source: control_pb2.WorkerStatus, target: control_pb2.WorkerStatus) -> Finding:
    """How the blocks of a pair differ; what cannot be reconciled is a difference of the model."""
    return ok("pair", pair_name(source, target), layouts(source, target))


def probe_finding(grpc_address: str, source: control_pb2.WorkerStatus, target: control_pb2.WorkerStatus) -> Finding:
    """Sends a prompt from one worker to the other."""
    names = [worker.hello.endpoint.worker.name for worker in (source, target)]
    try:
        with control_stub(grpc_address) as stub:
            request = control_pb2.ProbePairRequest(prefill=names[0], decode=names[1])
            answer = stub.ProbePair(request, timeout=PROBE_TIMEOUT_S)
    except BatonError as error:
        remedy = "see both workers' logs, and that each reaches the other's address"
        return fail("pair", pair_name(source, target), error.message, remedy)
    return transfer_finding(source, target, answer)


def transfer_finding(
    source: control_pb2.WorkerStatus, target: control_pb2.WorkerStatus, answer: control_pb2.ProbePairResponse
) -> Finding:
    """What a probe says of a pair: KV must move faster than it is computed, or decoding waits for it."""
    subject = pair_name(source, target)
    if not (answer.num_bytes and answer.busy_s):
        detail = f"{answer.num_tokens} tokens went over, first token {answer.ttft_s * MS_PER_S:.0f} ms"
        remedy = "try again: the worker has not said yet what it moved"
        return warn("pair", subject, f"{detail}; no transfer was counted", remedy)
    way = "/".join(filter(None, (answer.transport, answer.path))) or "an unknown transport"
    speed = answer.num_bytes / answer.busy_s
    detail = (
        f"{layouts(source, target)}; {way} ({answer.direction}), {answer.num_bytes / 1e6:.1f} MB at "
        f"{speed / GB:.2f} GB/s; first token {answer.ttft_s * MS_PER_S:.0f} ms, second "
        f"{answer.second_token_s * MS_PER_S:.0f} ms"
    )
    if answer.busy_s > answer.ttft_s:
        remedy = f"moving KV took {answer.busy_s * MS_PER_S:.0f} ms, longer than computing it: see docs/rdma.md"
        return warn("pair", subject, detail, remedy)
    if answer.path == "tcp" and is_one_host(source, target):
        remedy = "allow memory copies between processes: `--cap-add=SYS_PTRACE`, or ptrace_scope 0 or 1 and one user"
        return warn("pair", subject, detail, remedy)
    return ok("pair", subject, detail)


def layouts(source: control_pb2.WorkerStatus, target: control_pb2.WorkerStatus) -> str:
    """Blocks and ranks at both ends."""
    ends = [
        f"{worker.hello.layout.block_tokens} tokens per block, {describe_topology(worker.hello.topology)} rank(s)"
        for worker in (source, target)
    ]
    return f"{ends[0]} {source.hello.layout.dtype}" if ends[0] == ends[1] else " to ".join(ends)


def is_one_host(source: control_pb2.WorkerStatus, target: control_pb2.WorkerStatus) -> bool:
    """Whether both ends listen on one address."""
    hosts = {worker.hello.endpoint.address.rpartition(":")[0] for worker in (source, target)}
    return len(hosts) == 1


def pair_name(source: control_pb2.WorkerStatus, target: control_pb2.WorkerStatus) -> str:
    """From which worker to which."""
    return f"{source.hello.endpoint.worker.name} to {target.hello.endpoint.worker.name}"
