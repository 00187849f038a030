// Attention over paged keys and values, read where they lie.
//
// A block holds [2 * kv_heads, block_tokens, head_dim] of a layer, keys first; block_tokens is a multiple of 16, so
// that 16 keys of a head are the rows of a tile. Scores are computed with keys as rows and queries as columns:
// the softmax of a query then runs down a column, sixteen queries at a time, without sums across a register.
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

// sums[heads][head_dim] += weights[count][columns] of `HEADS` heads times values[count][head_dim].
template <int HEADS>
void add_values(const bf16* values, int count, int64_t head_dim, const float* weights, int columns, float* sums) {
  for (int64_t d = 0; d < head_dim; d += TILE) {
    __m512 sum[HEADS];
    for (int j = 0; j < HEADS; ++j) sum[j] = _mm512_loadu_ps(sums + j * head_dim + d);
    for (int i = 0; i < count; ++i) {
      const __m512 value = load_bf16(values + i * head_dim + d);
      for (int j = 0; j < HEADS; ++j) sum[j] = _mm512_fmadd_ps(_mm512_set1_ps(weights[i * columns + j]), value, sum[j]);
    }
    for (int j = 0; j < HEADS; ++j) _mm512_storeu_ps(sums + j * head_dim + d, sum[j]);
  }
}

void add_values(const bf16* values, int count, int64_t head_dim, const float* weights, int columns, int group,
                float* sums) {
  for (int head = 0; head < group;) {
    const int left = group - head;
    float* to = sums + head * head_dim;
    if (left >= 4) add_values<4>(values, count, head_dim, weights + head, columns, to);
    else if (left == 3) add_values<3>(values, count, head_dim, weights + head, columns, to);
    else if (left == 2) add_values<2>(values, count, head_dim, weights + head, columns, to);
    else add_values<1>(values, count, head_dim, weights + head, columns, to);
    head += 4;
  }
}

// Lane-wise maximum or sum of lanes that belong to the same column.
template <typename Combine>
void fold_lanes(__m512 lanes, int columns, float* per_column, Combine&& combine) {
  alignas(64) float values[TILE];
  _mm512_store_ps(values, lanes);
  for (int column = 0; column < columns; ++column) {
    per_column[column] = values[column];
    for (int lane = column + columns; lane < TILE; lane += columns) {
      per_column[column] = combine(per_column[column], values[lane]);
    }
  }
}

// One token of one sequence, the query heads of one KV head: softmax over all scores, then the weighted sum of values.
// Scores lie close together, [key][columns], so that a register holds those of several keys.
void attend_token(const Pool& pool, const int64_t* table, int64_t length, int64_t kv_head, const bf16* query,
                  int group, int columns, float scale, bf16* out) {
  const int64_t head_dim = pool.head_dim, padded = (length + TILE - 1) / TILE * TILE;
  bf16* queries = scratch<bf16>(1, TILE * head_dim);
  float* scores = scratch<float>(2, padded * columns);
  float* sums = scratch<float>(3, group * head_dim);
  const bf16* rows[TILE];
  for (int i = 0; i < group; ++i) rows[i] = query + i * head_dim;
  pack_queries(rows, group, columns, head_dim, queries);

  for (int64_t key = 0; key < padded; key += TILE) {
    if (key + TILE < padded) prefetch_rows(pool.keys(table, kv_head, key + TILE), head_dim);
    score_tile(pool.keys(table, kv_head, key), head_dim, queries, columns, scores + key * columns);
  }
  std::fill(scores + length * columns, scores + padded * columns, LOWEST);
  __m512 highest = _mm512_set1_ps(LOWEST);
  for (int64_t i = 0; i < padded * columns; i += TILE) highest = _mm512_max_ps(highest, _mm512_loadu_ps(scores + i));
  alignas(64) float per_column[TILE];
  fold_lanes(highest, columns, per_column, [](float a, float b) { return std::max(a, b); });
  for (int lane = columns; lane < TILE; ++lane) per_column[lane] = per_column[lane % columns];
  const __m512 factor = _mm512_set1_ps(scale * LOG2_E);
  const __m512 offset = _mm512_mul_ps(_mm512_load_ps(per_column), factor);
  __m512 total = _mm512_setzero_ps();
  std::memset(sums, 0, group * head_dim * sizeof(float));
  for (int64_t key = 0; key < length; key += TILE) {
    if (key + TILE < length) prefetch_rows(pool.values(table, kv_head, key + TILE), head_dim);
    float* weights = scores + key * columns;
    for (int i = 0; i < columns; ++i) {  // 16 keys of `columns` scores
      const __m512 weight = exp2_ps(_mm512_fmsub_ps(_mm512_loadu_ps(weights + i * TILE), factor, offset));
      total = _mm512_add_ps(total, weight);
      _mm512_storeu_ps(weights + i * TILE, weight);
    }
    const int count = static_cast<int>(std::min<int64_t>(TILE, length - key));
    add_values(pool.values(table, kv_head, key), count, head_dim, weights, columns, group, sums);
  }
  fold_lanes(total, columns, per_column, [](float a, float b) { return a + b; });
  for (int i = 0; i < group; ++i) {
    const __m512 share = _mm512_set1_ps(1.0f / per_column[i]);
    for (int64_t d = 0; d < head_dim; d += TILE) {
      store_bf16(out + i * head_dim + d, _mm512_mul_ps(_mm512_loadu_ps(sums + i * head_dim + d), share));
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
    configure_tiles(TILE, columns);
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

constexpr int KEYS = 128;        // keys whose scores are computed before the running softmax is corrected
constexpr int MAX_TILES = 64;    // query tiles that share one transposition of the values

// Running softmax of 16 queries (columns): the highest score, the sum of weights, the weighted sum of values.
struct QueryTile {
  alignas(64) int32_t positions[TILE];
  int64_t last_position;
  int count;
  bf16* queries;   // as pack_queries makes them
  float* highest;  // [16]
  float* total;    // [16]
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
  __m512 total = _mm512_mul_ps(_mm512_loadu_ps(tile.total), correction);
  const int64_t padded = (count + TILE_K - 1) / TILE_K * TILE_K;
  std::fill(scores + count * TILE, scores + padded * TILE, LOWEST);
  for (int64_t key = 0; key < padded; key += 2) {
    const __m512 even = exp2_ps(_mm512_fmsub_ps(_mm512_load_ps(scores + key * TILE), factor, offset));
    const __m512 odd = exp2_ps(_mm512_fmsub_ps(_mm512_load_ps(scores + (key + 1) * TILE), factor, offset));
    total = _mm512_add_ps(total, _mm512_add_ps(even, odd));
    const __m512i low = _mm512_cvtepu16_epi32(to_bf16(even)), high = _mm512_cvtepu16_epi32(to_bf16(odd));
    _mm512_store_si512(weights + key * TILE, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
  _mm512_storeu_ps(tile.highest, highest);
  _mm512_storeu_ps(tile.total, total);
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
// queries and out as in baton_attend_tokens, a row per token. A token's result does not depend on how the sequence is
// cut into chunks: keys are taken in the same parts whatever the chunk.
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
    float* running = scratch<float>(3, tiles_per_part * TILE * (head_dim + 2));
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
        tile.sums = running + i * TILE * (head_dim + 2);
        tile.highest = tile.sums + TILE * head_dim;
        tile.total = tile.highest + TILE;
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
        _mm512_storeu_ps(tile.total, _mm512_setzero_ps());
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
          const float share = 1.0f / tile.total[column];
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
