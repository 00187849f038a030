#include "gemm.h"

#include <sys/syscall.h>
#include <unistd.h>

// Asks the kernel for the tile registers; 0 on success.
BATON_EXPORT int baton_enable_amx() {
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return static_cast<int>(syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA));
}

// Packs `num_rows` (a multiple of 16) rows of a weight into the column blocks first_block, first_block + block_step, ...
BATON_EXPORT void baton_pack(const bf16* weight, int64_t ldw, int64_t num_rows, int64_t in_features, bf16* packed,
                             int64_t first_block, int64_t block_step) {
  const int64_t k_tiles = in_features / TILE_K;
  for (int64_t row = 0; row < num_rows; ++row) {
    const int64_t block = first_block + row / TILE * block_step;
    const bf16* from = weight + row * ldw;
    for (int64_t k = 0; k < k_tiles; ++k) {
      bf16* tile = packed + (block * k_tiles + k) * TILE_SIZE + row % TILE * 2;
      for (int pair = 0; pair < TILE; ++pair) {
        std::memcpy(tile + pair * TILE_K, from + k * TILE_K + pair * 2, 2 * sizeof(bf16));
      }
    }
  }
}

// Rows of a packed weight, as an embedding looks them up.
BATON_EXPORT void baton_embed(const int64_t* token_ids, int64_t num_tokens, const bf16* packed, int64_t in_features,
                              bf16* out) {
  const int64_t k_tiles = in_features / TILE_K;
  for (int64_t i = 0; i < num_tokens; ++i) {
    const int64_t row = token_ids[i];
    for (int64_t k = 0; k < k_tiles; ++k) {
      const bf16* tile = packed + (row / TILE * k_tiles + k) * TILE_SIZE + row % TILE * 2;
      for (int pair = 0; pair < TILE; ++pair) {
        std::memcpy(out + i * in_features + k * TILE_K + pair * 2, tile + pair * TILE_K, 2 * sizeof(bf16));
      }
    }
  }
}

template <typename Store>
static void for_panels(const bf16* x, int64_t ldx, int64_t num_rows, int64_t in_features, const bf16* packed,
                       int64_t num_panels, int num_threads, Store&& store) {
  const int k_tiles = static_cast<int>(in_features / TILE_K);
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const bf16* tiles = packed + panel * 2 * k_tiles * TILE_SIZE;
      multiply_panel(x, ldx, num_rows, k_tiles, tiles, [&](int64_t row, const float* c) { store(panel, row, c); });
    }
    release_tiles();
  }
}

// out[num_rows, out_features] = x @ weight.T + bias; `bias` may be null, `out` is bfloat16 or, with `is_float`, float32.
BATON_EXPORT void baton_linear(const bf16* x, int64_t ldx, int64_t num_rows, int64_t in_features, const bf16* packed,
                               int64_t out_features, const bf16* bias, void* out, int is_float, int num_threads) {
  const int64_t num_panels = (out_features + PANEL - 1) / PANEL;
  const auto store = [&](int64_t panel, int64_t row, const float* c) {
    for (int half = 0; half < 2; ++half) {
      const int64_t column = panel * PANEL + half * TILE;
      const int count = static_cast<int>(std::min<int64_t>(TILE, out_features - column));
      if (count <= 0) return;
      const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
      __m512 sums = _mm512_loadu_ps(c + half * TILE);
      if (bias != nullptr) {
        const __m256i bits = _mm256_maskz_loadu_epi16(mask, bias + column);
        sums = _mm512_add_ps(sums, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
      }
      if (is_float) {
        _mm512_mask_storeu_ps(static_cast<float*>(out) + row * out_features + column, mask, sums);
      } else {
        store_bf16(static_cast<bf16*>(out) + row * out_features + column, sums, count);
      }
    }
  };
  for_panels(x, ldx, num_rows, in_features, packed, num_panels, num_threads, store);
}

// out[num_rows, width] = silu(x @ gate.T) * (x @ up.T); a panel holds 16 gate columns and the 16 up columns of them.
BATON_EXPORT void baton_gated_linear(const bf16* x, int64_t ldx, int64_t num_rows, int64_t in_features,
                                     const bf16* packed, int64_t width, const bf16* bias, bf16* out, int num_threads) {
  const auto store = [&](int64_t panel, int64_t row, const float* c) {
    __m512 gate = _mm512_loadu_ps(c), up = _mm512_loadu_ps(c + TILE);
    if (bias != nullptr) {
      gate = _mm512_add_ps(gate, load_bf16(bias + panel * TILE));
      up = _mm512_add_ps(up, load_bf16(bias + width + panel * TILE));
    }
    store_bf16(out + row * width + panel * TILE, _mm512_mul_ps(silu(gate), up));
  };
  for_panels(x, ldx, num_rows, in_features, packed, width / TILE, num_threads, store);
}
