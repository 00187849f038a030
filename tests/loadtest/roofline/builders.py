"""A model and a GPU of round numbers, so that times can be worked out by hand."""

from dataclasses import replace

from loadtest.roofline.assumptions import Assumptions
from loadtest.roofline.gpu import Gpu
from loadtest.roofline.rank_model import Matrices, RankModel

GPU = Gpu(
    name="round",
    gpus_per_node=8,
    flops_per_s={16: 1e15, 8: 2e15},
    memory_bytes_per_s=1e12,
    memory_bytes=10**11,
    nvlink_bytes_per_s=1e9,
    nic_bytes_per_s=1e8,
)
IDEAL = Assumptions(
    matrix_share=1.0,
    attention_share=1.0,
    memory_share=1.0,
    link_share=1.0,
    busiest_rank=1.0,
    layer_s=0.0,
    collective_s=0.0,
    step_s=0.0,
)
NONE = Matrices(0, 0, 16)
DENSE = RankModel(
    tensor_size=1,
    expert_size=1,
    num_layers=10,
    num_moe_layers=0,
    hidden_size=1000,
    attention_width=500,
    every_token=Matrices(10**9, 2 * 10**9, 16),
    head=NONE,
    experts=NONE,
    num_experts=0,
    top_k=0,
    kv_bytes=1000,
    kv_token_room=10_000,
)
EXPERTS = replace(
    DENSE, num_moe_layers=5, every_token=NONE, experts=Matrices(4 * 10**9, 4 * 10**9, 8), num_experts=4, top_k=2
)
