"""What `baton model inspect` prints: facts of a checkpoint, and a memory plan."""

from rich.table import Table

from deploy.model_summary import ModelSummary
from deploy.planning.devices import GIB
from deploy.planning.memory import STEP_SEQUENCES, STEP_TOKENS, USABLE_SHARE, MemoryPlan, PlanRequest
from deploy.planning.quantization import QUANTIZATIONS


def summary_table(summary: ModelSummary) -> Table:
    """What a complete checkpoint folder holds."""
    table = Table(title=summary.path, show_header=False, title_justify="left")
    for name, value in _summary_rows(summary).items():
        table.add_row(name, value)
    return table


def _summary_rows(summary: ModelSummary) -> dict[str, str]:
    num_dense_layers = summary.num_layers - summary.num_moe_layers
    experts = f"{summary.num_experts} per MoE layer, {summary.num_experts_per_token} per token"
    stored = ", ".join(f"{count} tensors {dtype}" for dtype, count in summary.stored_dtypes.items())
    return {
        "Architecture": summary.architecture,
        "Parameters": f"{summary.num_parameters / 1e6:,.1f} M, {summary.num_active_parameters / 1e6:,.1f} M active",
        "Layers": f"{summary.num_layers} ({num_dense_layers} dense, {summary.num_moe_layers} MoE)",
        "Experts": f"{experts}, {summary.num_shared_experts} shared",
        "Heads": f"{summary.num_heads} query, {summary.num_kv_heads} KV, of {summary.head_dim}",
        "Hidden size": f"{summary.hidden_size:,}",
        "Context": f"{summary.context_length:,} tokens",
        "Dtype": f"{summary.dtype} (stored: {stored})",
        "On disk": f"{summary.weight_bytes / 1e6:,.1f} MB",
        "KV cache": f"{summary.kv_bytes_per_token:,} bytes per token",
        "Tokenizer": f"{summary.vocab_size:,} tokens, {'with' if summary.has_chat_template else 'no'} chat template",
    }


def plan_table(model: str, plan: MemoryPlan, request: PlanRequest) -> Table:
    """Memory of one rank, and what fits."""
    topology = request.topology
    devices = "one device" if plan.num_ranks == 1 else f"each of {plan.num_ranks} devices"
    title = f"{model}: memory of {devices}, tp {topology.tensor_parallel_size}, ep {topology.expert_parallel_size}"
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in _plan_rows(plan).items():
        table.add_row(name, value)
    return table


def plan_notes(plan: MemoryPlan, request: PlanRequest) -> str:
    """What the plan rests on, and whether Baton serves it."""
    assumed = (
        f"Assumed: {QUANTIZATIONS[request.quantization].words}; {USABLE_SHARE:.0%} of a device's "
        f"{request.device_bytes / GIB:,.1f} GiB usable; activations of a step of {STEP_TOKENS:,} tokens and "
        f"{STEP_SEQUENCES} sequences."
    )
    return assumed if plan.unserved_reason is None else f"{assumed}\nNote: {plan.unserved_reason}."


def _plan_rows(plan: MemoryPlan) -> dict[str, str]:
    parts = {f"  {part}": _gib(size) for part, size in plan.weight_bytes.items()}
    short = f"{_gib(-plan.kv_room_bytes)} short: take more devices, larger ones, or fewer bits"
    return {
        "Parameters": f"{plan.num_parameters / 1e9:,.2f} B, {plan.num_active_parameters / 1e9:,.2f} B active",
        "Weights": _gib(plan.total_weight_bytes),
        **parts,
        "Activations": f"{_gib(plan.activation_bytes)} (estimate)",
        "KV per token": (
            f"{plan.kv_bytes_per_token_of_rank:,} bytes, {plan.kv_bytes_per_token:,} bytes in the whole model"
        ),
        "Room for KV": _gib(plan.kv_room_bytes) if plan.kv_room_bytes > 0 else short,
        "Largest context": f"{plan.largest_context:,} tokens of one sequence",
        "Largest batch": f"{plan.largest_batch:,} sequence(s) of {plan.context:,} tokens",
    }


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:,.2f} GiB"
