// What all kernels share: bfloat16, the exponential, AMX tiles.
#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#define BATON_EXPORT extern "C" __attribute__((visibility("default")))

using bf16 = uint16_t;

constexpr int TILE = 16;          // rows of a tile; also its columns of four bytes
constexpr int TILE_K = 32;        // bfloat16 elements in a row of a tile
constexpr int TILE_SIZE = 512;    // bfloat16 elements of a tile

// Sixteen consecutive elements as float32, and back.
static inline __m512 load_bf16(const bf16* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline __m256i to_bf16(__m512 values) {
  const __m256bh rounded = _mm512_cvtneps_pbh(values);
  __m256i bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  return bits;
}

static inline void store_bf16(bf16* to, __m512 values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bf16(values));
}

static inline void store_bf16(bf16* to, __m512 values, int count) {
  _mm256_mask_storeu_epi16(to, static_cast<__mmask16>((1u << count) - 1), to_bf16(values));
}

constexpr float LOG2_E = 1.44269504f;

// 2^x for finite x, to 3e-6 relative, a thousandth of a bfloat16 step; exactly 1 at 0, and exactly 0 far below.
// x = n + r with |r| <= 1/2; a polynomial of r with the smallest largest relative error among those that are 1 at 0.
static inline __m512 exp2_ps(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, 0), r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(9.58274e-3f);
  for (const float c : {5.590611e-2f, 2.4024099e-1f, 6.9312423e-1f, 1.0f}) {
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  }
  return _mm512_scalef_ps(p, n);
}

static inline __m512 silu(__m512 x) {
  const __m512 e = exp2_ps(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)));
  return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

// Memory of a thread that is reused from call to call; contents do not survive one.
template <typename T>
T* scratch(int slot, size_t count) {
  static thread_local std::vector<std::pair<size_t, std::unique_ptr<void, decltype(&std::free)>>> slots;
  while (slots.size() <= static_cast<size_t>(slot)) slots.emplace_back(0, std::unique_ptr<void, decltype(&std::free)>(nullptr, &std::free));
  auto& [size, memory] = slots[slot];
  const size_t wanted = (count * sizeof(T) + 63) / 64 * 64;
  if (size < wanted) {
    memory.reset(std::aligned_alloc(64, wanted));
    size = wanted;
  }
  return static_cast<T*>(memory.get());
}
