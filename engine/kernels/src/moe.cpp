// Routed experts: which ones a token goes to, and their weighted sum.
#include "gemm.h"

// Top-k of softmax(x @ weight.T) + correction, weighted by the probabilities without it, normalised.
// weight: [num_experts, hidden] float32. experts: [num_tokens, top_k]; weights alike, float32. counts, unless null,
// grow by the tokens that each expert gets.
BATON_EXPORT void baton_route(const bf16* x, int64_t num_tokens, int64_t hidden, const float* weight,
                              const float* correction, int64_t num_experts, int64_t top_k, float norm_min,
                              int64_t* experts, float* weights, int64_t* counts, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static) if (num_threads > 1 && num_tokens > 1)
  for (int64_t token = 0; token < num_tokens; ++token) {
    float* row = scratch<float>(1, hidden + 2 * num_experts + 32);
    float* probabilities = row + hidden;
    float* scores = probabilities + num_experts;
    for (int64_t i = 0; i < hidden; i += TILE) _mm512_storeu_ps(row + i, load_bf16(x + token * hidden + i));
    float highest = -std::numeric_limits<float>::infinity();
    for (int64_t expert = 0; expert < num_experts; ++expert) {
      __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
      const float* w = weight + expert * hidden;
      for (int64_t i = 0; i < hidden; i += 2 * TILE) {  // hidden is a multiple of 32
        even = _mm512_fmadd_ps(_mm512_loadu_ps(row + i), _mm512_loadu_ps(w + i), even);
        odd = _mm512_fmadd_ps(_mm512_loadu_ps(row + i + TILE), _mm512_loadu_ps(w + i + TILE), odd);
      }
      probabilities[expert] = _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
      highest = std::max(highest, probabilities[expert]);
    }
    float total = 0.0f;
    for (int64_t expert = 0; expert < num_experts; ++expert) {
      probabilities[expert] = std::exp(probabilities[expert] - highest);
      total += probabilities[expert];
    }
    for (int64_t expert = 0; expert < num_experts; ++expert) {
      probabilities[expert] /= total;
      scores[expert] = probabilities[expert] + correction[expert];
    }
    float chosen_total = 0.0f;
    for (int64_t choice = 0; choice < top_k; ++choice) {
      const int64_t best = std::max_element(scores, scores + num_experts) - scores;
      experts[token * top_k + choice] = best;
      weights[token * top_k + choice] = probabilities[best];
      chosen_total += probabilities[best];
      scores[best] = -std::numeric_limits<float>::infinity();
    }
    for (int64_t choice = 0; choice < top_k; ++choice) {
      weights[token * top_k + choice] /= std::max(chosen_total, norm_min);
    }
  }
  if (counts == nullptr) return;
  for (int64_t pair = 0; pair < num_tokens * top_k; ++pair) ++counts[experts[pair]];
}

namespace {

// The pairs (token, choice) of a step, sorted by expert; those of expert e are begins[e] to begins[e + 1]. Pairs with
// a negative expert, whose expert is elsewhere, are left out.
struct Routing {
  std::vector<int64_t> begins, tokens;
  std::vector<float> weights;

  Routing(const int64_t* experts, const float* choice_weights, int64_t num_tokens, int64_t num_experts, int64_t top_k)
      : begins(num_experts + 1), tokens(num_tokens * top_k), weights(num_tokens * top_k) {
    const int64_t num_pairs = num_tokens * top_k;
    for (int64_t pair = 0; pair < num_pairs; ++pair) {
      if (experts[pair] >= 0) ++begins[experts[pair] + 1];
    }
    for (int64_t expert = 0; expert < num_experts; ++expert) begins[expert + 1] += begins[expert];
    std::vector<int64_t> next(begins.begin(), begins.end() - 1);
    for (int64_t pair = 0; pair < num_pairs; ++pair) {
      if (experts[pair] < 0) continue;
      const int64_t place = next[experts[pair]]++;
      tokens[place] = pair / top_k;
      weights[place] = choice_weights[pair];
    }
  }
};

}  // namespace

// out[token] = sum over its experts of weight * down(silu(gate(x)) * up(x)), float32.
// gate_up: per expert as in baton_gated_linear; down: per expert a packed [hidden, width].
// A token's experts are added in the order of their ids, in float32, whatever other tokens there are.
BATON_EXPORT void baton_experts(const bf16* x, int64_t num_tokens, int64_t hidden, int64_t width, int64_t num_experts,
                                int64_t top_k, const int64_t* experts, const float* weights, const bf16* gate_up,
                                const bf16* down, float* out, int num_threads) {
  const Routing routing(experts, weights, num_tokens, num_experts, top_k);
  const int64_t num_pairs = routing.begins[num_experts];
  std::vector<int64_t> hit;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    if (routing.begins[expert] < routing.begins[expert + 1]) hit.push_back(expert);
  }
  bf16* gathered = scratch<bf16>(2, num_pairs * hidden);
  bf16* activations = scratch<bf16>(3, num_pairs * width);
  const int64_t up_panels = width / TILE, down_panels = hidden / PANEL;
  const int up_tiles = static_cast<int>(hidden / TILE_K), down_tiles = static_cast<int>(width / TILE_K);
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t pair = 0; pair < num_pairs; ++pair) {
      std::memcpy(gathered + pair * hidden, x + routing.tokens[pair] * hidden, hidden * sizeof(bf16));
    }
#pragma omp for schedule(static)
    for (int64_t task = 0; task < static_cast<int64_t>(hit.size()) * up_panels; ++task) {
      const int64_t expert = hit[task / up_panels], panel = task % up_panels;
      const int64_t begin = routing.begins[expert];
      const bf16* tiles = gate_up + (expert * up_panels + panel) * 2 * up_tiles * TILE_SIZE;
      multiply_panel(gathered + begin * hidden, hidden, routing.begins[expert + 1] - begin, up_tiles, tiles,
                     [&](int64_t row, const float* c) {
                       const __m512 value = _mm512_mul_ps(silu(_mm512_loadu_ps(c)), _mm512_loadu_ps(c + TILE));
                       store_bf16(activations + (begin + row) * width + panel * TILE, value);
                     });
    }
#pragma omp for schedule(static)
    for (int64_t panel = 0; panel < down_panels; ++panel) {
      float* totals = scratch<float>(4, num_tokens * PANEL);
      std::memset(totals, 0, num_tokens * PANEL * sizeof(float));
      for (const int64_t expert : hit) {
        const int64_t begin = routing.begins[expert];
        const bf16* tiles = down + (expert * down_panels + panel) * 2 * down_tiles * TILE_SIZE;
        multiply_panel(activations + begin * width, width, routing.begins[expert + 1] - begin, down_tiles, tiles,
                       [&](int64_t row, const float* c) {
                         float* total = totals + routing.tokens[begin + row] * PANEL;
                         const __m512 weight = _mm512_set1_ps(routing.weights[begin + row]);
                         for (int half = 0; half < PANEL; half += TILE) {
                           const __m512 sum = _mm512_loadu_ps(total + half);
                           _mm512_storeu_ps(total + half, _mm512_fmadd_ps(weight, _mm512_loadu_ps(c + half), sum));
                         }
                       });
      }
      for (int64_t token = 0; token < num_tokens; ++token) {
        for (int half = 0; half < PANEL; half += TILE) {
          const __m512 total = _mm512_loadu_ps(totals + token * PANEL + half);
          _mm512_storeu_ps(out + token * hidden + panel * PANEL + half, total);
        }
      }
    }
    release_tiles();
  }
}
