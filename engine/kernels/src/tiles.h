// AMX tiles as the products here use them: two row blocks of A times two column blocks of B.
//
//            B0 (tile 6)   B1 (tile 7)
//   A0 (4)   C 0           C 1
//   A1 (5)   C 2           C 3
#pragma once

#include "common.h"

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

static thread_local int configured = 0;  // what this thread's tiles are configured for

// For `num_rows` rows, at most 32, in A0 and, where that is full, A1; B and C have `columns` columns, at most 16.
static inline void configure_tiles(int num_rows, int columns = TILE) {
  if (num_rows * TILE + columns == configured) return;
  configured = num_rows * TILE + columns;
  const int rows0 = std::min(num_rows, TILE), rows1 = std::max(num_rows - TILE, 0);
  TileConfig config;
  const int rows[8] = {rows0, rows0, rows1, rows1, rows0, rows1, TILE, TILE};
  for (int tile = 0; tile < 8; ++tile) {
    config.rows[tile] = static_cast<uint8_t>(rows[tile]);
    const bool is_a = tile == 4 || tile == 5;
    config.row_bytes[tile] = static_cast<uint16_t>(rows[tile] == 0 ? 0 : is_a ? 64 : 4 * columns);
  }
  _tile_loadconfig(&config);
}

// At the end of a kernel: others (oneDNN) configure tiles too, and a thread that is switched out saves them.
static inline void release_tiles() {
  configured = 0;
  _tile_release();
}

// c[rows0 + rows1][32] (+)= A * B over `k_tiles` tiles of 32. The order of additions of a row depends on nothing but
// the number of tiles, so its result does not depend on the rows beside it.
template <bool TWO_ROW_BLOCKS>
static inline void multiply_tiles(const bf16* a, int64_t lda, int k_tiles, const bf16* b0, const bf16* b1, float* c,
                                  bool accumulate) {
  constexpr int LDC = 2 * TILE * sizeof(float);
  if (accumulate) {
    _tile_loadd(0, c, LDC);
    _tile_loadd(1, c + TILE, LDC);
    if constexpr (TWO_ROW_BLOCKS) {
      _tile_loadd(2, c + TILE * 2 * TILE, LDC);
      _tile_loadd(3, c + TILE * 2 * TILE + TILE, LDC);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (TWO_ROW_BLOCKS) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (int k = 0; k < k_tiles; ++k) {
    _tile_loadd(4, a + k * TILE_K, lda * sizeof(bf16));
    _tile_loadd(6, b0 + k * TILE_SIZE, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b1 + k * TILE_SIZE, 64);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (TWO_ROW_BLOCKS) {
      _tile_loadd(5, a + TILE * lda + k * TILE_K, lda * sizeof(bf16));
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, LDC);
  _tile_stored(1, c + TILE, LDC);
  if constexpr (TWO_ROW_BLOCKS) {
    _tile_stored(2, c + TILE * 2 * TILE, LDC);
    _tile_stored(3, c + TILE * 2 * TILE + TILE, LDC);
  }
}
