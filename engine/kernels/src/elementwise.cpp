// What happens between products: normalisation, rotary embedding, storing keys and values.
#include "common.h"

// x += delta (unless null), out = x / rms(x) * weight; rows of `hidden` elements, a multiple of 16.
BATON_EXPORT void baton_add_rms_norm(float* x, const float* delta, const bf16* weight, float eps, int64_t num_rows,
                                     int64_t hidden, bf16* out, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static) if (num_threads > 1 && num_rows > 8)
  for (int64_t row = 0; row < num_rows; ++row) {
    float* values = x + row * hidden;
    __m512 squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < hidden; i += TILE) {
      __m512 value = _mm512_loadu_ps(values + i);
      if (delta != nullptr) {
        value = _mm512_add_ps(value, _mm512_loadu_ps(delta + row * hidden + i));
        _mm512_storeu_ps(values + i, value);
      }
      squares = _mm512_fmadd_ps(value, value, squares);
    }
    const float mean = _mm512_reduce_add_ps(squares) / static_cast<float>(hidden);
    const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(mean + eps));
    for (int64_t i = 0; i < hidden; i += TILE) {
      const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(values + i), scale);
      store_bf16(out + row * hidden + i, _mm512_mul_ps(value, load_bf16(weight + i)));
    }
  }
}

// Rotates queries and keys of qkv[num_tokens, num_heads + 2 * kv_heads, head_dim] in place, then stores keys and
// values in the pool. rotations: [num_tokens, head_dim / 2] pairs (cos, sin). pool_layer: a layer's part of block 0.
BATON_EXPORT void baton_rotate_and_store(bf16* qkv, const float* rotations, int64_t num_tokens, int64_t num_heads,
                                         bf16* pool_layer, int64_t block_elements, int64_t block_tokens,
                                         int64_t kv_heads, int64_t head_dim, const int64_t* block_ids,
                                         const int64_t* offsets, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static) if (num_threads > 1 && num_tokens > 8)
  for (int64_t token = 0; token < num_tokens; ++token) {
    bf16* heads = qkv + token * (num_heads + 2 * kv_heads) * head_dim;
    const float* rotation = rotations + token * head_dim;
    for (int64_t head = 0; head < num_heads + kv_heads; ++head) {
      for (int64_t i = 0; i < head_dim; i += TILE) {
        bf16* pairs = heads + head * head_dim + i;
        const __m512 value = load_bf16(pairs), turn = _mm512_loadu_ps(rotation + i);
        const __m512 crossed = _mm512_mul_ps(_mm512_permute_ps(value, 0xB1), _mm512_movehdup_ps(turn));
        store_bf16(pairs, _mm512_fmaddsub_ps(value, _mm512_moveldup_ps(turn), crossed));
      }
    }
    bf16* block = pool_layer + block_ids[token] * block_elements;
    for (int64_t row = 0; row < 2 * kv_heads; ++row) {
      std::memcpy(block + (row * block_tokens + offsets[token]) * head_dim, heads + (num_heads + row) * head_dim,
                  head_dim * sizeof(bf16));
    }
  }
}
