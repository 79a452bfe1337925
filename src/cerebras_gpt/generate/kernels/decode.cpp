// The decoder for a few rows on a CPU: every weight is read once, in the order in which it lies in memory.
//
// Letters: N rows, C width, S cached time, D width of a head, H heads. A row's numbers do not depend on N: each row is
// summed by the same instructions in the same order, whoever else is there. Weights lie in tiles of LANES output rows
// (generate/weights.py says how). Products of int8 and int4 weights take the input as int8 too, with a scale for each
// GROUP numbers of a row; those of bfloat16 take it as bfloat16; sums are float32 everywhere.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
static int omp_get_num_threads() { return 1; }
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

constexpr int LANES = 16, GROUP = 32, MOST = 8;  // MOST: rows that one pass over a tile serves
enum Kind { FLOAT32, BFLOAT16, INT8, INT4 };
enum Activation { GELU, GELU_NEW, RELU };

typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef uint32_t U16 __attribute__((vector_size(64)));
typedef uint16_t H16 __attribute__((vector_size(32)));

template <class V>
inline V load(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline void store(float* to, F16 v) { std::memcpy(to, &v, sizeof v); }
inline F16 all(float x) { return x - F16{}; }
inline F16 from_bits(U16 bits) { return (F16)bits; }
inline F16 wide(const float* x) { return load<F16>(x); }
inline F16 wide(const uint16_t* x) { return from_bits(__builtin_convertvector(load<H16>(x), U16) << 16); }
inline float one(float x) { return x; }
inline float one(uint16_t x) {
  uint32_t bits = uint32_t(x) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}
inline uint16_t bfloat(float x) {  // to the nearest, to even among equals
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 64);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline void keep(float* to, float x) { *to = x; }
inline void keep(uint16_t* to, float x) { *to = bfloat(x); }
inline float total(F16 v) {
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}
inline F16 least(F16 a, F16 b) { return a < b ? a : b; }
inline F16 most(F16 a, F16 b) { return a > b ? a : b; }

// Cephes' expf: 2^n times a polynomial of degree 6.
inline F16 exponential(F16 x) {
  x = least(most(x, all(-87.f)), all(88.f));
  F16 magic = all(12582912.f), n = (x * 1.44269504f + magic) - magic;
  x = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  F16 y = x * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * x + 8.3334519073e-3f;
  y = y * x + 4.1665795894e-2f;
  y = y * x + 1.6666665459e-1f;
  y = y * x + 5.0000001201e-1f;
  y = (y * x) * x + x + 1.f;
  return y * (F16)((__builtin_convertvector(n, I16) + 127) << 23);
}

// erf as a rational function of x^2 times x on [-4, 4], beyond which it is 1 in float32 (the coefficients of Eigen).
inline F16 erf16(F16 x) {
  x = least(most(x, all(-4.f)), all(4.f));
  F16 z = x * x;
  F16 p = z * -2.72614225801306e-10f + 2.77068142495902e-08f;
  p = p * z + -2.10102402082508e-06f;
  p = p * z + -5.69250639462346e-05f;
  p = p * z + -7.34990630326855e-04f;
  p = p * z + -2.95459980854025e-03f;
  p = p * z + -1.60960333262415e-02f;
  F16 q = z * -1.45660718464996e-05f + -2.13374055278905e-04f;
  q = q * z + -1.68282697438203e-03f;
  q = q * z + -7.37332916720468e-03f;
  q = q * z + -1.42647390514189e-02f;
  return x * p / q;
}

inline F16 activated(F16 x, int kind) {
  if (kind == RELU) return most(x, F16{});
  if (kind == GELU) return 0.5f * x * (1.f + erf16(x * 0.707106781f));
  F16 u = 1.5957691216f * (x + 0.044715f * x * x * x);  // x sigmoid(2 u') is x (1 + tanh u') / 2
  return x / (1.f + exponential(-u));
}

}  // namespace

extern "C" {
struct Linear {
  const uint8_t* codes;
  const uint16_t* scales;
  const float* bias;  // filled up to LANES, or null
  int64_t n_in, n_out, kind;  // n_in is filled up to GROUP
};
struct Layer {
  const float *norm1, *norm1_bias, *norm2, *norm2_bias;
  Linear qkv, out, up, down;
};
struct Model {
  int64_t n_layers, d_model, n_heads, d_ffn, activation, small_cache, n_slots, n_positions;
  float eps, attention_scale, residual_scale, embedding_scale, logit_scale;
  const float *tokens, *positions, *norm, *norm_bias;
  const Layer* layers;
  Linear head;
};
}

namespace {

// The rows as a product takes them: of each row n_in numbers in the product's own kind, and per group a scale and what
// the sum of the group starts from (the codes are unsigned, so minus their zero times the sum of the numbers).
struct Input {
  uint8_t* numbers;
  float* scales;
  int32_t* starts;
  int64_t stride, n_groups;

  Input(const Linear& w, uint8_t* memory, int64_t n) {
    stride = w.n_in * (w.kind == FLOAT32 ? 4 : w.kind == BFLOAT16 ? 2 : 1), n_groups = w.n_in / GROUP;
    numbers = memory, scales = (float*)(memory + n * stride), starts = (int32_t*)(scales + n * n_groups);
  }

  void take(const Linear& w, int64_t row, const float* x, int64_t n) const {
    uint8_t* to = numbers + row * stride;
    if (w.kind == FLOAT32) {
      std::memcpy(to, x, n * 4), std::memset(to + n * 4, 0, stride - n * 4);
    } else if (w.kind == BFLOAT16) {
      for (int64_t i = 0; i < n; ++i) ((uint16_t*)to)[i] = bfloat(x[i]);
      std::memset(to + n * 2, 0, stride - n * 2);
    } else {
      for (int64_t g = 0; g < n_groups; ++g) group(w.kind == INT8 ? 128 : 8, row * n_groups + g, x + g * GROUP,
                                                   std::min<int64_t>(GROUP, n - g * GROUP), (int8_t*)to + g * GROUP);
    }
  }

  void group(int zero, int64_t at, const float* x, int64_t n, int8_t* to) const {
    float v[GROUP] = {};
    std::memcpy(v, x, std::max<int64_t>(n, 0) * 4);
    F16 a = load<F16>(v), b = load<F16>(v + LANES), size = most(most(a, -a), most(b, -b));
    float largest = 0, stray = total(a * 0.f + b * 0.f);  // NaN if a number is not finite, to be passed on
    for (int i = 0; i < LANES; ++i) largest = std::max(largest, size[i]);
    float inverse = stray == 0 && largest > 0 ? 127.f / largest : 0.f;
    int32_t sum = 0;
    for (int i = 0; i < GROUP; ++i) {
      float code = inverse > 0 ? (v[i] * inverse + 12582912.f) - 12582912.f : 0.f;
      to[i] = int8_t(code);
      sum += int32_t(code);
    }
    scales[at] = largest / 127.f + stray, starts[at] = -zero * sum;
  }
};

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
inline I16 dot4(I16 sum, const U16 w, int32_t x) {
  return (I16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(x));
}
#else
inline I16 dot4(I16 sum, const U16 w, int32_t x) {
  for (int i = 0; i < 4; ++i)
    sum += (I16)(w >> (8 * i) & 255u) * int32_t(int8_t(uint32_t(x) >> (8 * i)));
  return sum;
}
#endif

#if defined(__AVX512BF16__)
inline F16 dot2(F16 sum, const U16 w, uint32_t x) {
  return (F16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(x));
}
#else
inline F16 dot2(F16 sum, const U16 w, uint32_t x) {
  sum += from_bits(w << 16) * one(uint16_t(x));
  return sum + from_bits(w & 0xffff0000u) * one(uint16_t(x >> 16));
}
#endif

// One tile of R rows: LANES outputs of each.
template <int R>
void tile_product(const Linear& w, int64_t tile, const Input& x, int64_t row, F16* y) {
  for (int r = 0; r < R; ++r) y[r] = F16{};
  const uint8_t* numbers = x.numbers + row * x.stride;
  if (w.kind == FLOAT32) {
    const float *from = (const float*)w.codes + tile * w.n_in * LANES, *in = (const float*)numbers;
    for (int64_t i = 0; i < w.n_in; ++i) {
      F16 v = load<F16>(from + i * LANES);
      for (int r = 0; r < R; ++r) y[r] += v * in[r * w.n_in + i];
    }
  } else if (w.kind == BFLOAT16) {
    const uint8_t* from = w.codes + tile * w.n_in * LANES * 2;
    for (int64_t i = 0; i < w.n_in; i += 2) {
      U16 v = load<U16>(from + i * LANES * 2);
      for (int r = 0; r < R; ++r) y[r] = dot2(y[r], v, load<uint32_t>(numbers + r * x.stride + i * 2));
    }
  } else {
    const bool half = w.kind == INT4;
    const uint8_t* from = w.codes + tile * w.n_in * LANES / (half ? 2 : 1);
    const uint16_t* scales = w.scales + tile * x.n_groups * LANES;
    for (int64_t g = 0; g < x.n_groups; ++g, scales += LANES, numbers += GROUP) {
      I16 sum[R];
      for (int r = 0; r < R; ++r) sum[r] = x.starts[(row + r) * x.n_groups + g] - I16{};
      if (half) {
        for (int i = 0; i < GROUP; i += 8, from += 64) {
          U16 v = load<U16>(from), low = v & 0x0f0f0f0fu, high = v >> 4 & 0x0f0f0f0fu;
          for (int r = 0; r < R; ++r) {
            sum[r] = dot4(sum[r], low, load<int32_t>(numbers + r * x.stride + i));
            sum[r] = dot4(sum[r], high, load<int32_t>(numbers + r * x.stride + i + 4));
          }
        }
      } else {
        for (int i = 0; i < GROUP; i += 4, from += 64) {
          U16 v = load<U16>(from);
          for (int r = 0; r < R; ++r) sum[r] = dot4(sum[r], v, load<int32_t>(numbers + r * x.stride + i));
        }
      }
      F16 scale = wide(scales);
      for (int r = 0; r < R; ++r)
        y[r] += __builtin_convertvector(sum[r], F16) * (scale * x.scales[(row + r) * x.n_groups + g]);
    }
  }
}

typedef void (*TileProduct)(const Linear&, int64_t, const Input&, int64_t, F16*);
constexpr TileProduct TILE_PRODUCTS[MOST + 1] = {nullptr,         tile_product<1>, tile_product<2>,
                                                 tile_product<3>, tile_product<4>, tile_product<5>,
                                                 tile_product<6>, tile_product<7>, tile_product<8>};

struct Part {
  int64_t from, to;
};
inline Part part(int64_t n, int64_t of, int64_t mine) { return {n * mine / of, n * (mine + 1) / of}; }

// Every product of this thread's tiles; done(row, first output, LANES numbers) takes them.
template <class Done>
void products(const Linear& w, const Input& x, int64_t n, Done done) {
  auto [from, to] = part((w.n_out + LANES - 1) / LANES, omp_get_num_threads(), omp_get_thread_num());
  for (int64_t tile = from; tile < to; ++tile) {
    F16 bias = w.bias ? load<F16>(w.bias + tile * LANES) : F16{};
    for (int64_t row = 0; row < n; row += MOST) {
      F16 y[MOST];
      int64_t rows = std::min<int64_t>(MOST, n - row);
      TILE_PRODUCTS[rows](w, tile, x, row, y);
      for (int64_t r = 0; r < rows; ++r) done(row + r, tile * LANES, y[r] + bias);
    }
  }
}

inline void put(float* to, F16 v, int64_t n) { std::memcpy(to, &v, std::min<int64_t>(n, LANES) * 4); }

void normalise(const float* x, const float* weight, const float* bias, int64_t n, float eps, float factor, float* y) {
  F16 sums{}, squares{};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) sums += load<F16>(x + i);
  for (int64_t k = i; k < n; ++k) sums[k - i] += x[k];
  float mean = total(sums) / n;
  for (i = 0; i + LANES <= n; i += LANES) {
    F16 d = load<F16>(x + i) - mean;
    squares += d * d;
  }
  for (int64_t k = i; k < n; ++k) squares[k - i] += (x[k] - mean) * (x[k] - mean);
  float inverse = 1.f / std::sqrt(total(squares) / n + eps);
  for (int64_t k = 0; k < n; ++k) y[k] = ((x[k] - mean) * inverse * weight[k] + bias[k]) * factor;
}

// Softmax(scale q k) v over the positions up to and with the row's own: one row of one head.
template <class K>
void attend(const float* q, const K* k, const K* v, int64_t length, int64_t D, float scale, float* scores, float* y) {
  F16 highest = all(-INFINITY);
  int64_t filled = (length + LANES - 1) / LANES * LANES;
  for (int64_t s = 0; s < length; ++s, k += D) {
    F16 sum{};
    int64_t d = 0;
    for (; d + LANES <= D; d += LANES) sum += load<F16>(q + d) * wide(k + d);
    for (int64_t e = d; e < D; ++e) sum[e - d] += q[e] * one(k[e]);
    scores[s] = total(sum) * scale;
  }
  for (int64_t s = length; s < filled; ++s) scores[s] = -INFINITY;
  for (int64_t s = 0; s < filled; s += LANES) highest = most(highest, load<F16>(scores + s));
  float top = highest[0];
  for (int i = 1; i < LANES; ++i) top = std::max(top, highest[i]);
  F16 sums{};
  for (int64_t s = 0; s < filled; s += LANES) {
    F16 e = exponential(load<F16>(scores + s) - top);
    store(scores + s, e);
    if (s + LANES <= length) sums += e;
    else for (int64_t i = s; i < length; ++i) sums[i - s] += e[i - s];
  }
  float inverse = 1.f / total(sums);
  for (int64_t d = 0; d + LANES <= D; d += LANES) {
    F16 sum{};
    for (int64_t s = 0; s < length; ++s) sum += scores[s] * wide(v + s * D + d);
    store(y + d, sum * inverse);
  }
  for (int64_t d = D / LANES * LANES; d < D; ++d) {
    float sum = 0;
    for (int64_t s = 0; s < length; ++s) sum += scores[s] * one(v[s * D + d]);
    y[d] = sum * inverse;
  }
}

struct Rows {
  int64_t n;
  const int64_t *ids, *positions, *slots;
};

// The decoder's blocks on all threads, between two barriers each: x (N, C) is the residual stream.
template <class K>
struct Pass {
  const Model& m;
  const Rows& rows;
  K* cache;  // (L, 2, slots, H, S, D)
  float *x, *normed, *q, *mixed, *up, *scores;
  uint8_t* memory;

  Part mine(int64_t n) const { return part(n, omp_get_num_threads(), omp_get_thread_num()); }
  int64_t head_width() const { return m.d_model / m.n_heads; }
  K* past(int64_t layer, int64_t kind, int64_t slot, int64_t head) const {
    return cache + ((((layer * 2 + kind) * m.n_slots + slot) * m.n_heads + head) * m.n_positions) * head_width();
  }

  Input normalised(const Linear& w, const float* weight, const float* bias) const {
    Input input(w, memory, rows.n);
    auto [from, to] = mine(rows.n);
    for (int64_t row = from; row < to; ++row) {
      float* y = normed + row * m.d_model;
      normalise(x + row * m.d_model, weight, bias, m.d_model, m.eps, 1.f, y);
      input.take(w, row, y, m.d_model);
    }
#pragma omp barrier
    return input;
  }

  Input taken(const Linear& w, const float* from_rows, int64_t width) const {
#pragma omp barrier
    Input input(w, memory, rows.n);
    auto [from, to] = mine(rows.n);
    for (int64_t row = from; row < to; ++row) input.take(w, row, from_rows + row * width, width);
#pragma omp barrier
    return input;
  }

  void add(const Linear& w, const Input& input) const {
    products(w, input, rows.n, [&](int64_t row, int64_t first, F16 y) {
      float* to = x + row * m.d_model + first;
      for (int64_t i = 0; i < std::min<int64_t>(LANES, m.d_model - first); ++i) to[i] += m.residual_scale * y[i];
    });
#pragma omp barrier
  }

  void split(int64_t layer, int64_t row, int64_t first, F16 y) const {  // into queries, and keys and values kept
    const int64_t C = m.d_model, D = head_width();
    for (int64_t i = 0; i < std::min<int64_t>(LANES, 3 * C - first); ++i) {
      int64_t at = first + i, kind = at / C, c = at % C;
      if (kind == 0) q[row * C + c] = y[i];
      else keep(past(layer, kind - 1, rows.slots[row], c / D) + rows.positions[row] * D + c % D, y[i]);
    }
  }

  void block(int64_t index) const {
    const Layer& layer = m.layers[index];
    const int64_t C = m.d_model, H = m.n_heads, D = head_width();
    Input input = normalised(layer.qkv, layer.norm1, layer.norm1_bias);
    products(layer.qkv, input, rows.n, [&](int64_t row, int64_t first, F16 y) { split(index, row, first, y); });
#pragma omp barrier
    float* own = scores + omp_get_thread_num() * (m.n_positions + LANES);
    auto [from, to] = mine(rows.n * H);
    for (int64_t task = from; task < to; ++task) {
      int64_t row = task % rows.n, head = task / rows.n, slot = rows.slots[row], at = row * C + head * D;
      attend<K>(q + at, past(index, 0, slot, head), past(index, 1, slot, head), rows.positions[row] + 1, D,
                m.attention_scale, own, mixed + at);
    }
    add(layer.out, taken(layer.out, mixed, C));
    input = normalised(layer.up, layer.norm2, layer.norm2_bias);
    products(layer.up, input, rows.n, [&](int64_t row, int64_t first, F16 y) {
      put(up + row * m.d_ffn + first, activated(y, m.activation), m.d_ffn - first);
    });
    add(layer.down, taken(layer.down, up, m.d_ffn));
  }

  void run(float* result) const {
    const int64_t C = m.d_model;
    auto [from, to] = mine(rows.n);
    for (int64_t row = from; row < to; ++row)
      for (int64_t c = 0; c < C; ++c)
        x[row * C + c] = (m.tokens[rows.ids[row] * C + c] + m.positions[rows.positions[row] * C + c]) * m.embedding_scale;
#pragma omp barrier
    for (int64_t index = 0; index < m.n_layers; ++index) block(index);
    for (int64_t row = from; row < to; ++row)
      normalise(x + row * C, m.norm, m.norm_bias, C, m.eps, m.logit_scale, result + row * C);
  }
};

template <class K>
void pass(const Model& m, const Rows& rows, void* cache, float* f, float* result) {
  const int64_t N = rows.n, C = m.d_model;
  float* up = f + 4 * N * C;
  float* scores = up + N * m.d_ffn;
  float* memory = scores + omp_get_num_threads() * (m.n_positions + LANES);
  Pass<K>{m, rows, (K*)cache, f, f + N * C, f + 2 * N * C, f + 3 * N * C, up, scores, (uint8_t*)memory}.run(result);
}

}  // namespace

extern "C" {

// Memory in large pages, where the system grants them: fewer look-ups of addresses on the way through all weights.
void in_large_pages(void* memory, int64_t n_bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  madvise(memory, n_bytes, MADV_HUGEPAGE);
#else
  (void)memory, (void)n_bytes;
#endif
}

// Final states (N, C) of rows of single tokens; their keys and values go to the cache. Work holds what `work_floats`
// of generate/kernel.py says.
void hidden(const Model* m, int64_t n, const int64_t* ids, const int64_t* positions, const int64_t* slots, void* cache,
            float* work, float* result, int threads) {
  Rows rows{n, ids, positions, slots};
#pragma omp parallel num_threads(threads)
  m->small_cache ? pass<uint16_t>(*m, rows, cache, work, result) : pass<float>(*m, rows, cache, work, result);
}

// (N, n_in) -> (N, n_out), where n_in is not filled up.
void product(const Linear* w, int64_t n, int64_t n_in, const float* x, float* work, float* y, int threads) {
#pragma omp parallel num_threads(threads)
  {
    Input input(*w, (uint8_t*)work, n);
    auto [from, to] = part(n, omp_get_num_threads(), omp_get_thread_num());
    for (int64_t row = from; row < to; ++row) input.take(*w, row, x + row * n_in, n_in);
#pragma omp barrier
    products(*w, input, n, [&](int64_t row, int64_t first, F16 v) { put(y + row * w->n_out + first, v, w->n_out - first); });
  }
}
}
