"""The native kernels as functions of tensors. What they compute stands in `src/`; here are only shapes and pointers.

All tensors are on the CPU; weights and inputs of products are bfloat16, the residual stream and what is added to it
float32. Calls let other threads run meanwhile.
"""

import ctypes
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.kernels.build import KernelsUnavailableError, build_library
from engine.layers.paged_kv import PagedKv

TILE_ROWS = 16  # outputs of a packed weight come in blocks of this many
TILE_COLUMNS = 32  # and inputs of this many
MAX_GROUP = 16  # query heads of one KV head that the attention kernels take

POINTER = ctypes.c_void_p
SIZE = ctypes.c_int64
INT = ctypes.c_int
FLOAT = ctypes.c_float
SIGNATURES = {
    "baton_pack": (POINTER, SIZE, SIZE, SIZE, POINTER, SIZE, SIZE),
    "baton_embed": (POINTER, SIZE, POINTER, SIZE, POINTER),
    "baton_linear": (POINTER, SIZE, SIZE, SIZE, POINTER, SIZE, POINTER, POINTER, INT, INT),
    "baton_gated_linear": (POINTER, SIZE, SIZE, SIZE, POINTER, SIZE, POINTER, POINTER, INT),
    "baton_route": (POINTER, SIZE, SIZE, POINTER, POINTER, SIZE, SIZE, FLOAT, POINTER, POINTER, POINTER, INT),
    "baton_experts": ((POINTER, SIZE, SIZE, SIZE, SIZE, SIZE, POINTER, POINTER, POINTER, POINTER, POINTER, INT)),
    "baton_add_rms_norm": (POINTER, POINTER, POINTER, FLOAT, SIZE, SIZE, POINTER, INT),
    "baton_rotate_and_store": (
        (POINTER, POINTER, SIZE, SIZE, POINTER, SIZE, SIZE, SIZE, SIZE, POINTER, POINTER, INT)
    ),
    "baton_attend_tokens": (
        (POINTER, SIZE, SIZE, SIZE, POINTER, SIZE, SIZE, SIZE, SIZE, POINTER, POINTER, POINTER, POINTER, INT)
    ),
    "baton_attend_chunk": ((POINTER, SIZE, SIZE, SIZE, SIZE, POINTER, SIZE, SIZE, SIZE, SIZE, POINTER, POINTER, INT)),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight `[out_features, in_features]` in the order the tile instructions read it; see `src/gemm.h`.

    Attributes:
        tiles: `[out_features / 16 rounded up to even, in_features / 32, 512]` bfloat16, zero where rounded up.
        out_features: columns of the product.
        in_features: width of the input, a multiple of 32.
    """

    tiles: Tensor
    out_features: int
    in_features: int

    @classmethod
    def empty(cls, out_features: int, in_features: int) -> "PackedWeight":
        """A weight without values yet."""
        assert in_features % TILE_COLUMNS == 0, f"{in_features} inputs"
        num_blocks = -(-out_features // (2 * TILE_ROWS)) * 2
        shape = (num_blocks, in_features // TILE_COLUMNS, TILE_ROWS * TILE_COLUMNS)
        return cls(torch.zeros(shape, dtype=torch.bfloat16), out_features, in_features)

    def part(self, index: int, num_parts: int) -> "PackedWeight":
        """One of equal parts of the outputs, whole panels each; a view."""
        num_blocks = self.tiles.shape[0] // num_parts
        tiles = self.tiles[index * num_blocks : (index + 1) * num_blocks]
        return PackedWeight(tiles, self.out_features // num_parts, self.in_features)


class NativeKernels:
    """Calls into the compiled library.

    Args:
        library: of `build_library`.
        num_threads: OpenMP threads of a call, the caller's own included.
    """

    def __init__(self, library: Path, num_threads: int) -> None:
        functions = ctypes.CDLL(str(library))
        if functions.baton_enable_amx() != 0:
            raise KernelsUnavailableError("the operating system does not grant the AMX tile registers")
        self._functions: Any = functions
        self._num_threads = num_threads
        for name, argument_types in SIGNATURES.items():
            function = getattr(functions, name)
            function.argtypes, function.restype = argument_types, None

    def pack(
        self, rows: Tensor, into: PackedWeight, first_block: int = 0, block_step: int = 1, *, first_row: int = 0
    ) -> None:
        """Packs `[num_rows, in_features]` rows, 16 per block, into blocks `first_block`, `+ block_step`, ...

        The rows may be a piece of what belongs there, from `first_row` on, which begins a block.
        """
        assert first_row % TILE_ROWS == 0, f"row {first_row} is inside a block"
        num_rows, in_features = rows.shape
        tiles, block = into.tiles.data_ptr(), first_block + first_row // TILE_ROWS * block_step
        self._functions.baton_pack(rows.data_ptr(), rows.stride(0), num_rows, in_features, tiles, block, block_step)

    def embed(self, token_ids: Tensor, weight: PackedWeight) -> Tensor:
        """Rows of a weight: `[num_tokens]` int64 -> `[num_tokens, in_features]`."""
        out = torch.empty(len(token_ids), weight.in_features, dtype=torch.bfloat16)
        self._functions.baton_embed(
            token_ids.data_ptr(), len(token_ids), weight.tiles.data_ptr(), weight.in_features, out.data_ptr()
        )
        return out

    def linear(
        self, x: Tensor, weight: PackedWeight, bias: Tensor | None = None, dtype: torch.dtype = torch.bfloat16
    ) -> Tensor:
        """`x @ weight.T + bias` of `[num_tokens, in_features]`, as bfloat16 or float32; sums are float32."""
        out = torch.empty(x.shape[0], weight.out_features, dtype=dtype)
        self._functions.baton_linear(
            x.data_ptr(),
            x.stride(0),
            x.shape[0],
            weight.in_features,
            weight.tiles.data_ptr(),
            weight.out_features,
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            dtype is torch.float32,
            self._num_threads,
        )
        return out

    def gated_linear(self, x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        """`silu(gate(x)) * up(x)`: even blocks of `weight` are gate's, odd ones up's; in a bias gate comes first."""
        width = weight.out_features // 2
        out = torch.empty(x.shape[0], width, dtype=torch.bfloat16)
        self._functions.baton_gated_linear(
            x.data_ptr(),
            x.stride(0),
            x.shape[0],
            weight.in_features,
            weight.tiles.data_ptr(),
            width,
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            self._num_threads,
        )
        return out

    def route(
        self,
        x: Tensor,
        weight: Tensor,
        correction: Tensor,
        *,
        top_k: int,
        norm_min: float,
        num_tokens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `engine.layers.router.ExpertRouter`."""
        rows, hidden_size = x.shape
        experts = torch.empty(rows, top_k, dtype=torch.int64)
        weights = torch.empty(rows, top_k, dtype=torch.float32)
        self._functions.baton_route(
            x.data_ptr(),
            rows,
            hidden_size,
            weight.data_ptr(),
            correction.data_ptr(),
            weight.shape[0],
            top_k,
            norm_min,
            experts.data_ptr(),
            weights.data_ptr(),
            None if num_tokens is None else num_tokens.data_ptr(),
            self._num_threads,
        )
        return experts, weights

    def experts(
        self,
        x: Tensor,
        experts: Tensor,
        weights: Tensor,
        *,
        gate_up: PackedWeight,
        down: PackedWeight,
        num_experts: int,
    ) -> Tensor:
        """The weighted sum of each token's experts; those with a negative id are left out.

        Args:
            x: `[num_tokens, hidden_size]`.
            experts: `[num_tokens, top_k]` int64.
            weights: `[num_tokens, top_k]` float32.
            gate_up: all experts' one after another, each as in `gated_linear`.
            down: all experts' one after another.
            num_experts: how many they are.

        Returns:
            `[num_tokens, hidden_size]` float32.
        """
        out = torch.empty(x.shape, dtype=torch.float32)
        self._functions.baton_experts(
            x.data_ptr(),
            x.shape[0],
            x.shape[1],
            down.in_features,
            num_experts,
            experts.shape[1],
            experts.data_ptr(),
            weights.data_ptr(),
            gate_up.tiles.data_ptr(),
            down.tiles.data_ptr(),
            out.data_ptr(),
            self._num_threads,
        )
        return out

    def add_rms_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """Adds `delta` to `x` in place, and returns `x` normalised.

        Args:
            x: `[num_tokens, hidden_size]` float32.
            delta: of the same shape and type, or None for zero.
            weight: `[hidden_size]` bfloat16.
            eps: added to the mean square.

        Returns:
            `[num_tokens, hidden_size]` bfloat16.
        """
        out = torch.empty(x.shape, dtype=torch.bfloat16)
        self._functions.baton_add_rms_norm(
            x.data_ptr(),
            None if delta is None else delta.data_ptr(),
            weight.data_ptr(),
            eps,
            x.shape[0],
            x.shape[1],
            out.data_ptr(),
            self._num_threads,
        )
        return out

    def rotate_and_store(
        self,
        heads: Tensor,
        rotations: Tensor,
        layer: int,
        paged_kv: PagedKv,
        *,
        block_ids: Tensor,
        offsets: Tensor,
    ) -> None:
        """Rotates queries and keys in place and writes keys and values to the pool.

        Args:
            heads: `[num_tokens, num_heads + 2 * kv_heads, head_dim]`, contiguous.
            rotations: of `RotaryEmbedding`.
            layer: which layer of the pool.
            paged_kv: the pool.
            block_ids: `[num_tokens]` int64.
            offsets: `[num_tokens]` int64.
        """
        self._functions.baton_rotate_and_store(
            heads.data_ptr(),
            rotations.data_ptr(),
            heads.shape[0],
            heads.shape[1] - 2 * paged_kv.kv_heads,
            *paged_kv.addressing(layer),
            block_ids.data_ptr(),
            offsets.data_ptr(),
            self._num_threads,
        )

    def attend_tokens(
        self,
        queries: Tensor,
        layer: int,
        paged_kv: PagedKv,
        *,
        tables: Tensor,
        table_begins: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """One token of each of several sequences, over blocks read in place.

        Args:
            queries: `[num_sequences, kv_heads, group, head_dim]`; rows may be strided.
            layer: which layer of the pool.
            paged_kv: the pool.
            tables: int64 block ids of all sequences, one after another.
            table_begins: `[num_sequences]` int64, where each begins.
            lengths: `[num_sequences]` int64 tokens to attend over.

        Returns:
            `[num_sequences, kv_heads, group, head_dim]`.
        """
        out = torch.empty(queries.shape, dtype=torch.bfloat16)
        num_sequences, kv_heads, group, _ = queries.shape
        self._functions.baton_attend_tokens(
            queries.data_ptr(),
            queries.stride(0),
            num_sequences,
            kv_heads * group,
            *paged_kv.addressing(layer),
            tables.data_ptr(),
            table_begins.data_ptr(),
            lengths.data_ptr(),
            out.data_ptr(),
            self._num_threads,
        )
        return out

    def attend_chunk(self, queries: Tensor, layer: int, paged_kv: PagedKv, *, start: int, table: Tensor) -> Tensor:
        """Several tokens of one sequence, the first at position `start`: causal attention over blocks in place.

        Args:
            queries: `[num_tokens, kv_heads, group, head_dim]`; rows may be strided.
            layer: which layer of the pool.
            paged_kv: the pool.
            start: position of the first token.
            table: int64 block ids of the sequence.

        Returns:
            `[num_tokens, kv_heads, group, head_dim]`.
        """
        out = torch.empty(queries.shape, dtype=torch.bfloat16)
        num_tokens, kv_heads, group, _ = queries.shape
        self._functions.baton_attend_chunk(
            queries.data_ptr(),
            queries.stride(0),
            num_tokens,
            start,
            kv_heads * group,
            *paged_kv.addressing(layer),
            table.data_ptr(),
            out.data_ptr(),
            self._num_threads,
        )
        return out


@cache
def native_kernels(num_threads: int) -> NativeKernels:
    """The kernels of this process, compiled if need be.

    Raises:
        KernelsUnavailableError: this machine cannot have them.
    """
    try:
        return NativeKernels(build_library(), num_threads)
    except (OSError, RuntimeError) as error:  # no home folder, none that can be written or executed from
        raise KernelsUnavailableError(f"the compiled kernels cannot be kept or loaded: {error}") from error
