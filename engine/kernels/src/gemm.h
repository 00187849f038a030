// x @ weight.T for weights in tile order.
//
// A weight of [out, in] is packed into tiles of 16 outputs by 32 inputs, the tiles of the same outputs side by side:
//   tile[out / 16][in / 32], in it element [in / 2 % 16][out % 16][in % 2]
// Two neighbouring column blocks, 32 outputs, make a panel, the unit of work of a thread.
#pragma once

#include "tiles.h"

constexpr int PANEL = 2 * TILE;           // outputs of a panel
constexpr int ROW_BLOCK = 2 * TILE;       // rows computed together
constexpr int K_TILES_IN_CACHE = 16;      // half a panel's worth of first-level cache: 16 * 2 KiB

// All rows times one panel; `store(row, c)` gets 32 sums of a row.
template <typename Store>
static inline void multiply_panel(const bf16* a, int64_t lda, int64_t num_rows, int k_tiles, const bf16* panel,
                                  Store&& store) {
  const bf16* b0 = panel;
  const bf16* b1 = panel + static_cast<int64_t>(k_tiles) * TILE_SIZE;
  // Many rows read the panel many times: cut it so that each part stays in the first-level cache meanwhile.
  const int k_step = num_rows > ROW_BLOCK ? K_TILES_IN_CACHE : k_tiles;
  float* sums = scratch<float>(0, num_rows * PANEL + ROW_BLOCK * PANEL);
  for (int k = 0; k < k_tiles; k += k_step) {
    const int count = std::min(k_step, k_tiles - k);
    const bool is_last = k + count == k_tiles;
    for (int64_t row = 0; row < num_rows; row += ROW_BLOCK) {
      const int rows = static_cast<int>(std::min<int64_t>(ROW_BLOCK, num_rows - row));
      configure_tiles(rows);
      const bf16* a_block = a + row * lda + k * TILE_K;
      float* c = sums + row * PANEL;
      if (rows > TILE) {
        multiply_tiles<true>(a_block, lda, count, b0 + k * TILE_SIZE, b1 + k * TILE_SIZE, c, k > 0);
      } else {
        multiply_tiles<false>(a_block, lda, count, b0 + k * TILE_SIZE, b1 + k * TILE_SIZE, c, k > 0);
      }
      if (is_last) {
        for (int i = 0; i < rows; ++i) store(row + i, c + i * PANEL);
      }
    }
  }
}
