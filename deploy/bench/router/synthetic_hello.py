"""What synthetic workers say of themselves: all alike, with fast GPUs, and room for whatever is measured."""

import time

from core.cost import CostModel, Curve
from core.ids import WorkerEndpoint
from core.request import Role
from core.roles import RoleState
from router.fleet.hello import WorkerHello

FINGERPRINT = "synthetic"
BLOCK_TOKENS = 16
NUM_BLOCKS = 1_000_000
MAX_NUM_SEQS = 4096
LAYOUT = (
    ("num_layers", 32), ("kv_heads", 4), ("block_tokens", BLOCK_TOKENS), ("head_dim", 128), ("dtype", "bfloat16")
)  # fmt: skip


def synthetic_hello(endpoint: WorkerEndpoint, role: Role, max_model_len: int, slowness: float = 1.0) -> WorkerHello:
    """The hello of a worker whose steps take `slowness` times as long as those of others."""
    return WorkerHello(
        endpoint=endpoint,
        role_state=RoleState(role, 1),
        fingerprint=FINGERPRINT,
        layout=LAYOUT,
        block_tokens=BLOCK_TOKENS,
        block_bytes=2**20,
        num_blocks=NUM_BLOCKS,
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=max_model_len,
        cost_model=CostModel(
            chunk_tokens=8192,
            prefill=Curve(((1, 0.002), (1024, 0.01), (8192, 0.05))).times(slowness),
            prefill_pair_s=1e-10 * slowness,
            decode=Curve(((1, 0.004), (64, 0.006), (4096, 0.02))).times(slowness),
            decode_context_token_s=1e-9 * slowness,
        ),
        unix_s=time.time(),
    )
