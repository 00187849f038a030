"""What is reached of a GPU's peaks, and what steps cost beside computing: assumptions, each with its reason.

None was fitted to a published throughput of a model; `docs/planning.md` shows what each is worth.
"""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Assumptions:
    """How far a step stays behind the roofline.

    Attributes:
        matrix_share: of the peak of matrix products, over all of a large step. Kernels alone reach more: DeepGEMM
            1,550 of 1,979 TFLOPS at most, in FP8 on H800 (its README), 0.78; between them a step has quantization,
            norms, routing and shapes that fill the GPU less well, for which we take off a fifth.
        attention_share: of the 16-bit peak, of prompts' attention. FlashAttention-3 reaches 740 of 989 TFLOPS on
            long sequences (arXiv:2407.08608), 0.75; we take two thirds of that, for causal masks and short ones.
        memory_share: of the memory's bandwidth. FlashMLA reads 3,000 of 3,350 GB/s on H800 (its README), 0.9; we
            take off a tenth for matrices that are small on each rank.
        link_share: of NVLink or the adapters. DeepEP moves 153 to 158 of 200 GB/s within a node of H800, and 43 to
            58 of 50 between nodes (`docs/legacy.md`; local traffic counted); we take the first.
        hidden_share: of the time on links that computing hides. Baton waits for every collective: none.
        busiest_rank: tokens of the rank that has most, by the mean of all ranks: of those that ask its experts, where
            whole experts are divided, and of its own sequences, where attention is data-parallel; ours.
        layer_s: of a layer, launching what has no other cost: some ten kernels of 2 us in a CUDA graph; ours.
        collective_s: of a collective, before its bytes move. DeepEP's low-latency kernels take 77 and 114 us
            (`docs/legacy.md`, 8 ranks); their 7.5 and 14.5 MB alone would take 49 and 92 at the rates above. Of the
            28 and 22 that are left we take 20.
        step_s: of a step, planning it and drawing its tokens; ours.
        handoff_s: of a handoff, beside its bytes: Baton's own, measured as 2.3 ms on a CPU (README), rounded up.
    """

    matrix_share: float = 0.62
    attention_share: float = 0.5
    memory_share: float = 0.8
    link_share: float = 0.77
    hidden_share: float = 0.0
    busiest_rank: float = 1.2
    layer_s: float = 20e-6
    collective_s: float = 20e-6
    step_s: float = 2e-3
    handoff_s: float = 5e-3

    def varied(self, name: str, value: float) -> "Assumptions":
        """The same with one of them changed."""
        assert name in {field.name for field in fields(self)}, f"there is no assumption {name}"
        return replace(self, **{name: value})
