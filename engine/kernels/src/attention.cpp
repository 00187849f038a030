// Attention over paged keys and values, read where they lie.
//
// A block holds [2 * kv_heads, block_tokens, head_dim] of a layer, keys first; block_tokens is a multiple of 16, so
// that 16 keys of a head are the rows of a tile. Scores are computed with keys as rows and queries as columns:
// the softmax of a query then runs down a column, sixteen queries at a time, without sums across a register.
//
// There are two kernels, for many tokens of a sequence and for one. Both do the same arithmetic in the same order, so
// a token's result has the same bits whether it is part of a prompt, of another chunk of it, or decoded alone:
//   - keys are taken in parts of KEYS from position 0; each part corrects the running maximum, total and sums
//   - the total is kept in four, by position modulo 4, and added up at the end as (0 + 1) + (2 + 3)
//   - weights are rounded to bfloat16 for the weighted sum, which the tile product adds up pair by pair of keys
// Keys that a query must not see weigh exactly nothing, whether they are computed or not.
#include "tiles.h"

namespace {

struct Pool {
  const bf16* layer;  // a layer's part of block 0
  int64_t block_elements, block_tokens, kv_heads, head_dim;

  const bf16* row(const int64_t* table, int64_t kv_row, int64_t token) const {
    const bf16* block = layer + table[token / block_tokens] * block_elements;
    return block + (kv_row * block_tokens + token % block_tokens) * head_dim;
  }
  const bf16* keys(const int64_t* table, int64_t head, int64_t token) const { return row(table, head, token); }
  const bf16* values(const int64_t* table, int64_t head, int64_t token) const {
    return row(table, kv_heads + head, token);
  }
};

constexpr int KEYS = 128;   // keys whose scores are computed before the running softmax is corrected
constexpr int TOTALS = 4;   // parts of the sum of weights
constexpr float LOWEST = -1e30f;  // a score that weighs nothing; finite, so that differences of two are numbers

// Up to sixteen queries as the columns of tiles: packed[head_dim / 32][16 pairs][columns][2]. Missing ones are zero.
void pack_queries(const bf16* const* queries, int count, int columns, int64_t head_dim, bf16* packed) {
  std::memset(packed, 0, columns * head_dim * sizeof(bf16));
  for (int column = 0; column < count; ++column) {
    for (int64_t i = 0; i < head_dim; i += 2) {
      std::memcpy(packed + (i / 2 * columns + column) * 2, queries[column] + i, 2 * sizeof(bf16));
    }
  }
}

// scores[16 keys][columns] of one head, not scaled.
void score_tile(const bf16* keys, int64_t head_dim, const bf16* queries, int columns, float* scores) {
  _tile_zero(0);
  for (int64_t k = 0; k < head_dim / TILE_K; ++k) {
    _tile_loadd(4, keys + k * TILE_K, head_dim * sizeof(bf16));
    _tile_loadd(6, queries + k * TILE_K * columns, columns * 4);
    _tile_dpbf16ps(0, 4, 6);
  }
  _tile_stored(0, scores, columns * 4);
}

// What 16 keys of a head occupy; the next block is somewhere else, where the hardware does not look ahead.
void prefetch_rows(const bf16* rows, int64_t head_dim) {
  for (int64_t i = 0; i < TILE * head_dim; i += 32) _mm_prefetch(reinterpret_cast<const char*>(rows + i), _MM_HINT_T0);
}

// Joins the lanes of a register that belong to the same of `columns` columns; the result stands in all of them.
template <typename Combine>
__m512 fold_lanes(__m512 lanes, int columns, Combine&& combine) {
  if (columns <= 8) lanes = combine(lanes, _mm512_shuffle_f32x4(lanes, lanes, 0x4E));
  if (columns <= 4) lanes = combine(lanes, _mm512_shuffle_f32x4(lanes, lanes, 0xB1));
  return lanes;
}

// Tiles for one token: 0 scores, 1 sums, 4 keys, 5 weights, 6 queries, 7 values.
void configure_token_tiles(int columns) {
  configured = -columns;
  TileConfig config;
  const auto set = [&](int tile, int rows, int row_bytes) {
    config.rows[tile] = static_cast<uint8_t>(rows);
    config.row_bytes[tile] = static_cast<uint16_t>(row_bytes);
  };
  set(0, TILE, 4 * columns);
  set(1, columns, 64);
  set(4, TILE, 64);
  set(5, columns, 64);
  set(6, TILE, 4 * columns);
  set(7, TILE, 64);
  _tile_loadconfig(&config);
}

// values of 32 keys as [head_dim / 16][16 pairs of keys][16][2]; of keys from `count` on, zeros.
void interleave_values(const Pool& pool, const int64_t* table, int64_t kv_head, int64_t first, int64_t count,
                       bf16* interleaved) {
  alignas(64) static constexpr uint16_t LOW[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                   8,  40, 9,  41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i low = _mm512_load_si512(LOW), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  for (int pair = 0; pair < TILE; ++pair) {
    const int64_t left = count - 2 * pair;  // keys of the pair that there are
    const bf16* even = left > 0 ? pool.values(table, kv_head, first + 2 * pair) : nullptr;
    for (int64_t d = 0; d < pool.head_dim; d += TILE_K) {
      const __m512i zero = _mm512_setzero_si512();
      const __m512i a = left > 0 ? _mm512_loadu_si512(even + d) : zero;
      const __m512i b = left > 1 ? _mm512_loadu_si512(even + pool.head_dim + d) : zero;
      bf16* to = interleaved + d / TILE * TILE_SIZE + pair * TILE_K;
      _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, low, b));
      _mm512_storeu_si512(to + TILE_SIZE, _mm512_permutex2var_epi16(a, high, b));
    }
  }
}

// weights[32 keys each][COLUMNS][32] from [key][COLUMNS].
template <int COLUMNS>
void transpose_weights(const bf16* by_key, int64_t num_keys, bf16* weights) {
  constexpr int STEP = TILE_K / COLUMNS;  // keys in a register
  alignas(64) uint16_t order[TILE_K];
  for (int i = 0; i < TILE_K; ++i) order[i] = static_cast<uint16_t>(i % STEP * COLUMNS + i / STEP);
  const __m512i by_column = _mm512_load_si512(order);
  for (int64_t key = 0; key < num_keys; key += STEP) {
    alignas(64) bf16 columns[TILE_K];
    _mm512_store_si512(columns, _mm512_permutexvar_epi16(by_column, _mm512_loadu_si512(by_key + key * COLUMNS)));
    bf16* to = weights + key / TILE_K * COLUMNS * TILE_K + key % TILE_K;
    for (int i = 0; i < COLUMNS; ++i) std::memcpy(to + i * TILE_K, columns + i * STEP, STEP * sizeof(bf16));
  }
}

// One token of one sequence, the query heads of one KV head. Scores lie close together, [key][columns], so that a
// register holds those of several keys.
void attend_token(const Pool& pool, const int64_t* table, int64_t length, int64_t kv_head, const bf16* query,
                  int group, int columns, float scale, bf16* out) {
  alignas(64) float scores[KEYS * TILE];
  alignas(64) bf16 rounded[KEYS * TILE];       // [key][columns]
  alignas(64) bf16 weights[KEYS * TILE];       // [32 keys each][columns][32]
  const int64_t head_dim = pool.head_dim;
  bf16* queries = scratch<bf16>(1, TILE * head_dim);
  bf16* values = scratch<bf16>(2, KEYS * head_dim);
  float* sums = scratch<float>(3, columns * head_dim);
  const bf16* rows[TILE];
  for (int i = 0; i < group; ++i) rows[i] = query + i * head_dim;
  pack_queries(rows, group, columns, head_dim, queries);
  std::memset(sums, 0, columns * head_dim * sizeof(float));

  const __m512 factor = _mm512_set1_ps(scale * LOG2_E);
  const int registers = columns * TOTALS / TILE;  // of weights of four keys
  __m512 highest = _mm512_set1_ps(LOWEST);
  __m512 totals[TOTALS] = {};
  for (int64_t first = 0; first < length; first += KEYS) {
    const int64_t count = std::min<int64_t>(KEYS, length - first);
    const int64_t padded = (count + TILE_K - 1) / TILE_K * TILE_K;
    for (int64_t key = 0; key < count; key += TILE) {
      if (first + key + TILE < length) prefetch_rows(pool.keys(table, kv_head, first + key + TILE), head_dim);
      prefetch_rows(pool.values(table, kv_head, first + key), head_dim);
      score_tile(pool.keys(table, kv_head, first + key), head_dim, queries, columns, scores + key * columns);
    }
    std::fill(scores + count * columns, scores + padded * columns, LOWEST);
    const __m512 before = highest;
    for (int64_t i = 0; i < padded * columns; i += TILE) highest = _mm512_max_ps(highest, _mm512_load_ps(scores + i));
    highest = fold_lanes(highest, columns, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
    const __m512 offset = _mm512_mul_ps(highest, factor);
    const __m512 correction = exp2_ps(_mm512_fmsub_ps(before, factor, offset));
    for (int i = 0; i < registers; ++i) totals[i] = _mm512_mul_ps(totals[i], correction);
    for (int64_t i = 0; i < padded * columns / TILE; ++i) {
      const __m512 weight = exp2_ps(_mm512_fmsub_ps(_mm512_load_ps(scores + i * TILE), factor, offset));
      totals[i % registers] = _mm512_add_ps(totals[i % registers], weight);
      store_bf16(rounded + i * TILE, weight);
    }
    if (columns == 4) transpose_weights<4>(rounded, padded, weights);
    else if (columns == 8) transpose_weights<8>(rounded, padded, weights);
    else transpose_weights<16>(rounded, padded, weights);
    alignas(64) float corrections[TILE];
    _mm512_store_ps(corrections, correction);
    for (int head = 0; head < columns; ++head) {
      if (corrections[head] == 1.0f) continue;
      const __m512 by = _mm512_set1_ps(corrections[head]);
      float* row = sums + head * head_dim;
      for (int64_t d = 0; d < head_dim; d += TILE) _mm512_storeu_ps(row + d, _mm512_mul_ps(_mm512_loadu_ps(row + d), by));
    }
    for (int64_t key = 0; key < padded; key += TILE_K) {
      interleave_values(pool, table, kv_head, first + key, std::min<int64_t>(TILE_K, count - key), values + key * head_dim);
    }
    for (int64_t d = 0; d < head_dim; d += TILE) {
      _tile_loadd(1, sums + d, head_dim * sizeof(float));
      for (int64_t key = 0; key < padded; key += TILE_K) {
        _tile_loadd(5, weights + key * columns, 64);
        _tile_loadd(7, values + key * head_dim + d / TILE * TILE_SIZE, 64);
        _tile_dpbf16ps(1, 5, 7);
      }
      _tile_stored(1, sums + d, head_dim * sizeof(float));
    }
  }
  alignas(64) float parts[TOTALS * TILE];  // [position modulo 4][columns]
  for (int i = 0; i < registers; ++i) _mm512_store_ps(parts + i * TILE, totals[i]);
  for (int head = 0; head < group; ++head) {
    const float* part = parts + head;
    const float total = (part[0] + part[columns]) + (part[2 * columns] + part[3 * columns]);
    const __m512 share = _mm512_set1_ps(1.0f / total);
    for (int64_t d = 0; d < head_dim; d += TILE) {
      store_bf16(out + head * head_dim + d, _mm512_mul_ps(_mm512_loadu_ps(sums + head * head_dim + d), share));
    }
  }
}

}  // namespace

// One token of each of several sequences. queries: rows of `query_stride` elements, heads first; out: [num_sequences,
// num_heads, head_dim]. tables: block tables one after another, that of sequence i from table_begins[i].
BATON_EXPORT void baton_attend_tokens(const bf16* queries, int64_t query_stride, int64_t num_sequences,
                                      int64_t num_heads, const bf16* pool_layer, int64_t block_elements,
                                      int64_t block_tokens, int64_t kv_heads, int64_t head_dim, const int64_t* tables,
                                      const int64_t* table_begins, const int64_t* lengths, bf16* out,
                                      int num_threads) {
  const Pool pool{pool_layer, block_elements, block_tokens, kv_heads, head_dim};
  const int group = static_cast<int>(num_heads / kv_heads);
  const int columns = group <= 4 ? 4 : group <= 8 ? 8 : TILE;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
    configure_token_tiles(columns);
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < num_sequences * kv_heads; ++task) {
      const int64_t sequence = task / kv_heads, kv_head = task % kv_heads;
      attend_token(pool, tables + table_begins[sequence], lengths[sequence], kv_head,
                   queries + sequence * query_stride + kv_head * group * head_dim, group, columns, scale,
                   out + (sequence * num_heads + kv_head * group) * head_dim);
    }
    release_tiles();
  }
}

namespace {

constexpr int MAX_TILES = 64;  // query tiles that share one transposition of the values

// Running softmax of 16 queries (columns): the highest score, the sum of weights, the weighted sum of values.
struct QueryTile {
  alignas(64) int32_t positions[TILE];
  int64_t last_position;
  int count;
  bf16* queries;   // as pack_queries makes them
  float* highest;  // [16]
  float* totals;   // [4][16]
  float* sums;     // [head_dim][16]
};

// values of keys first to first + count as [KEYS / 32][head_dim][32 keys], missing keys zero.
void transpose_values(const Pool& pool, const int64_t* table, int64_t kv_head, int64_t first, int64_t count,
                      bf16* transposed) {
  const int64_t head_dim = pool.head_dim;
  for (int64_t part = 0; part * TILE_K < count; ++part) {
    bf16* to = transposed + part * head_dim * TILE_K;
    const int64_t valid = std::min<int64_t>(TILE_K, count - part * TILE_K);
    if (valid < TILE_K) std::memset(to, 0, head_dim * TILE_K * sizeof(bf16));
    for (int64_t i = 0; i < valid; i += 2) {  // two keys make a four-byte column
      const int64_t key = first + part * TILE_K + i;
      const bf16* even = pool.values(table, kv_head, key);
      const bf16* odd = i + 1 < valid ? even + head_dim : nullptr;
      for (int64_t d = 0; d < head_dim; ++d) {
        const uint32_t pair = even[d] | static_cast<uint32_t>(odd == nullptr ? 0 : odd[d]) << 16;
        std::memcpy(to + d * TILE_K + i, &pair, sizeof pair);
      }
    }
  }
}

// Takes keys first to first + count into the running softmax of a tile.
void attend_keys(const Pool& pool, const int64_t* table, int64_t kv_head, int64_t first, int64_t count,
                 const bf16* transposed, float scale, QueryTile& tile) {
  alignas(64) float scores[KEYS * TILE];
  alignas(64) bf16 weights[KEYS * TILE];  // [key pair][query][2]
  const int64_t head_dim = pool.head_dim;
  count = std::min(count, tile.last_position + 1 - first);
  for (int64_t key = 0; key < count; key += TILE) {
    score_tile(pool.keys(table, kv_head, first + key), head_dim, tile.queries, TILE, scores + key * TILE);
  }
  const bool is_causal = first + count - 1 > tile.positions[0];
  const __m512 before = _mm512_loadu_ps(tile.highest);
  __m512 highest = before;
  for (int64_t key = 0; key < count; ++key) {
    __m512 score = _mm512_load_ps(scores + key * TILE);
    if (is_causal) {
      const __m512i position = _mm512_set1_epi32(static_cast<int32_t>(first + key));
      const __mmask16 hidden = _mm512_cmplt_epi32_mask(_mm512_load_si512(tile.positions), position);
      score = _mm512_mask_mov_ps(score, hidden, _mm512_set1_ps(LOWEST));
      _mm512_store_ps(scores + key * TILE, score);
    }
    highest = _mm512_max_ps(highest, score);
  }
  const __m512 factor = _mm512_set1_ps(scale * LOG2_E);
  const __m512 offset = _mm512_mul_ps(highest, factor);
  const __m512 correction = exp2_ps(_mm512_fmsub_ps(before, factor, offset));
  __m512 totals[TOTALS];
  for (int i = 0; i < TOTALS; ++i) totals[i] = _mm512_mul_ps(_mm512_loadu_ps(tile.totals + i * TILE), correction);
  const int64_t padded = (count + TILE_K - 1) / TILE_K * TILE_K;
  std::fill(scores + count * TILE, scores + padded * TILE, LOWEST);
  for (int64_t key = 0; key < padded; key += 2) {
    const __m512 even = exp2_ps(_mm512_fmsub_ps(_mm512_load_ps(scores + key * TILE), factor, offset));
    const __m512 odd = exp2_ps(_mm512_fmsub_ps(_mm512_load_ps(scores + (key + 1) * TILE), factor, offset));
    totals[key % TOTALS] = _mm512_add_ps(totals[key % TOTALS], even);
    totals[key % TOTALS + 1] = _mm512_add_ps(totals[key % TOTALS + 1], odd);
    const __m512i low = _mm512_cvtepu16_epi32(to_bf16(even)), high = _mm512_cvtepu16_epi32(to_bf16(odd));
    _mm512_store_si512(weights + key * TILE, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
  _mm512_storeu_ps(tile.highest, highest);
  for (int i = 0; i < TOTALS; ++i) _mm512_storeu_ps(tile.totals + i * TILE, totals[i]);
  for (int64_t d = 0; d < head_dim; d += TILE) {
    float* sums = tile.sums + d * TILE;
    for (int i = 0; i < TILE; ++i) {
      _mm512_storeu_ps(sums + i * TILE, _mm512_mul_ps(_mm512_loadu_ps(sums + i * TILE), correction));
    }
    _tile_loadd(0, sums, 64);
    for (int64_t part = 0; part < padded / TILE_K; ++part) {
      _tile_loadd(4, transposed + (part * head_dim + d) * TILE_K, 64);
      _tile_loadd(6, weights + part * TILE_SIZE, 64);
      _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, sums, 64);
  }
}

}  // namespace

// Several tokens of one sequence, the first at position `start`: causal attention over positions 0 to the own one.
// queries and out as in baton_attend_tokens, a row per token.
BATON_EXPORT void baton_attend_chunk(const bf16* queries, int64_t query_stride, int64_t num_tokens, int64_t start,
                                     int64_t num_heads, const bf16* pool_layer, int64_t block_elements,
                                     int64_t block_tokens, int64_t kv_heads, int64_t head_dim, const int64_t* table,
                                     bf16* out, int num_threads) {
  const Pool pool{pool_layer, block_elements, block_tokens, kv_heads, head_dim};
  const int64_t group = num_heads / kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  const int64_t num_rows = num_tokens * group;  // of one KV head: (token, query head) in that order
  const int64_t num_tiles = (num_rows + TILE - 1) / TILE;
  // At least as many parts as threads have to share, of at most MAX_TILES tiles.
  const int64_t wanted = (num_threads + kv_heads - 1) / kv_heads;
  const int64_t tiles_per_part = std::clamp<int64_t>((num_tiles + wanted - 1) / wanted, 1, MAX_TILES);
  const int64_t num_parts = (num_tiles + tiles_per_part - 1) / tiles_per_part;
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
    configure_tiles(TILE);
    bf16* transposed = scratch<bf16>(1, KEYS * head_dim);
    bf16* packed = scratch<bf16>(2, tiles_per_part * TILE * head_dim);
    float* running = scratch<float>(3, tiles_per_part * TILE * (head_dim + 1 + TOTALS));
    std::vector<QueryTile> tiles(tiles_per_part);
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < kv_heads * num_parts; ++task) {
      // Later parts see more keys: they go first, so that no thread is left with the longest.
      const int64_t kv_head = task % kv_heads, part = num_parts - 1 - task / kv_heads;
      const int64_t first_tile = part * tiles_per_part;
      const int64_t count = std::min(tiles_per_part, num_tiles - first_tile);
      for (int64_t i = 0; i < count; ++i) {
        QueryTile& tile = tiles[i];
        const int64_t first_row = (first_tile + i) * TILE;
        tile.count = static_cast<int>(std::min<int64_t>(TILE, num_rows - first_row));
        tile.queries = packed + i * TILE * head_dim;
        tile.sums = running + i * TILE * (head_dim + 1 + TOTALS);
        tile.highest = tile.sums + TILE * head_dim;
        tile.totals = tile.highest + TILE;
        const bf16* rows[TILE];
        for (int column = 0; column < TILE; ++column) {
          const int64_t row = first_row + std::min(column, tile.count - 1);
          tile.positions[column] = static_cast<int32_t>(start + row / group);
          rows[column] = queries + row / group * query_stride + (kv_head * group + row % group) * head_dim;
        }
        tile.last_position = tile.positions[TILE - 1];
        pack_queries(rows, tile.count, TILE, head_dim, tile.queries);
        std::memset(tile.sums, 0, TILE * head_dim * sizeof(float));
        _mm512_storeu_ps(tile.highest, _mm512_set1_ps(LOWEST));
        std::memset(tile.totals, 0, TOTALS * TILE * sizeof(float));
      }
      const int64_t end = tiles[count - 1].last_position + 1;
      for (int64_t key = 0; key < end; key += KEYS) {
        const int64_t num_keys = std::min<int64_t>(KEYS, end - key);
        transpose_values(pool, table, kv_head, key, num_keys, transposed);
        for (int64_t i = 0; i < count; ++i) {
          if (tiles[i].last_position >= key) {
            attend_keys(pool, table, kv_head, key, num_keys, transposed, scale, tiles[i]);
          }
        }
      }
      for (int64_t i = 0; i < count; ++i) {
        const QueryTile& tile = tiles[i];
        for (int column = 0; column < tile.count; ++column) {
          const int64_t row = (first_tile + i) * TILE + column;
          bf16* to = out + (row / group * num_heads + kv_head * group + row % group) * head_dim;
          const float* part = tile.totals + column;
          const float share = 1.0f / ((part[0] + part[TILE]) + (part[2 * TILE] + part[3 * TILE]));
          alignas(64) float values[TILE];
          for (int64_t d = 0; d < head_dim; d += TILE) {
            for (int j = 0; j < TILE; ++j) values[j] = tile.sums[(d + j) * TILE + column] * share;
            store_bf16(to + d, _mm512_load_ps(values));
          }
        }
      }
    }
    release_tiles();
  }
}
