// Causal attention of one head at a time, without a table of all weights: B, H, T, D batch, heads, time, width.
//
// Products take pairs of bfloat16 along what is summed. A factor on the left is read as it lies, row by row; one on the
// right is packed first: a row of its pack holds a pair for each column.

namespace {

constexpr int ROWS = 8, WIDE = 2 * LANES;  // of a tile of a product, whose sums fit into registers
constexpr int64_t KEYS = 64, QUERIES = 64;  // of a block on the way back

// Vectors (T, D) of every head, in whatever order they lie.
struct Heads {
  Half* data;
  int64_t of_batch, of_head, of_time;

  Half* at(int64_t b, int64_t h) const { return data + b * of_batch + h * of_head; }
};

// c (ROWS, 16 N) = or += a b, over so many pairs.
template <int N>
inline void tile(const Half* a, int64_t of_a, const uint32_t* b, int64_t of_b, float* c, int64_t of_c, int64_t pairs,
                 bool add) {
  F16 sums[ROWS][N];
  for (int r = 0; r < ROWS; ++r)
    for (int n = 0; n < N; ++n) sums[r][n] = add ? _mm512_loadu_ps(c + r * of_c + n * LANES) : F16{};
  for (int64_t p = 0; p < pairs; ++p) {
    __m512bh right[N];
    for (int n = 0; n < N; ++n) right[n] = (__m512bh)_mm512_loadu_si512(b + p * of_b + n * LANES);
    for (int r = 0; r < ROWS; ++r) {
      int32_t pair;
      std::memcpy(&pair, a + r * of_a + 2 * p, 4);
      const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
      for (int n = 0; n < N; ++n) sums[r][n] = _mm512_dpbf16_ps(sums[r][n], left, right[n]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int n = 0; n < N; ++n) _mm512_storeu_ps(c + r * of_c + n * LANES, sums[r][n]);
}

// c (ROWS, width) = or += a b; the width a multiple of LANES.
void strip(const Half* a, int64_t of_a, const uint32_t* b, int64_t of_b, float* c, int64_t of_c, int64_t pairs,
           int64_t width, bool add) {
  int64_t n = 0;
  for (; n + WIDE <= width; n += WIDE) tile<2>(a, of_a, b + n, of_b, c + n, of_c, pairs, add);
  if (n < width) tile<1>(a, of_a, b + n, of_b, c + n, of_c, pairs, add);
}

// One round of turning 16 x 16 numbers: squares of S trade places across the diagonal.
template <int S>
inline void trade(__m512i* row) {
  alignas(64) int32_t low[LANES], high[LANES];
  for (int j = 0; j < LANES; ++j) low[j] = j & S ? LANES + j - S : j, high[j] = j & S ? LANES + j : j + S;
  const __m512i from_low = _mm512_load_si512(low), from_high = _mm512_load_si512(high);
  for (int i = 0; i < LANES; ++i) {
    if (i & S) continue;
    const __m512i a = row[i], b = row[i + S];
    row[i] = _mm512_permutex2var_epi32(a, from_low, b);
    row[i + S] = _mm512_permutex2var_epi32(a, from_high, b);
  }
}

// The transpose of 16 x 16 numbers, in place.
inline void turn(__m512i* row) { trade<1>(row), trade<2>(row), trade<4>(row), trade<8>(row); }

// Numbers from a row of such a pack to the next: an odd number of cache lines, so that rows do not displace each other.
inline int64_t stride(int64_t padded) { return padded + LANES; }

// Pairs along D, a column for each time: (D / 2, padded T); zeros from T on.
void pack_along_width(const Half* x, int64_t of_time, int64_t T, int64_t D, uint32_t* to, int64_t padded) {
  for (int64_t t = 0; t < padded; t += LANES)
    for (int64_t d = 0; d < D / 2; d += LANES) {
      __m512i row[LANES];
      for (int i = 0; i < LANES; ++i)
        row[i] = t + i < T ? _mm512_maskz_loadu_epi32(first(D / 2 - d), x + (t + i) * of_time + 2 * d) : __m512i{};
      turn(row);
      for (int i = 0; i < LANES && d + i < D / 2; ++i) _mm512_storeu_si512(to + (d + i) * stride(padded) + t, row[i]);
    }
}

// Of two rows of halves, the pairs.
inline __m512i paired(__m256i even, __m256i odd) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

// Pairs along T, a column for each of D: (padded T / 2, D); zeros from T on.
void pack_along_time(const Half* x, int64_t of_time, int64_t T, int64_t D, uint32_t* to, int64_t padded) {
  for (int64_t t = 0; t < padded; t += 2)
    for (int64_t d = 0; d < D; d += LANES) {
      const Half* from = x + t * of_time + d;
      const __m256i even = t < T ? _mm256_loadu_si256((const __m256i*)from) : __m256i{};
      const __m256i odd = t + 1 < T ? _mm256_loadu_si256((const __m256i*)(from + of_time)) : __m256i{};
      _mm512_storeu_si512(to + t / 2 * D + d, paired(even, odd));
    }
}

// Weights of a query from its products with n keys, not yet divided by their sum; zeros up to the padded n.
// Gives the largest product and the sum.
inline std::pair<float, float> weigh(const float* products, Half* weights, int64_t n, int64_t padded, float scale) {
  F16 top = all(-INFINITY), total = {};
  for (int64_t k = 0; k < n; k += LANES) top = _mm512_mask_max_ps(top, first(n - k), top, _mm512_loadu_ps(products + k));
  const float highest = _mm512_reduce_max_ps(top);
  for (int64_t k = 0; k < padded; k += LANES) {
    const __mmask16 m = n > k ? first(n - k) : 0;
    F16 e = _mm512_maskz_mov_ps(m, exponential((_mm512_loadu_ps(products + k) - all(highest)) * scale));
    total += e;
    write(weights + k, e);
  }
  return {highest, sum(total)};
}

struct Shape {
  int64_t B, H, T, D;

  int64_t padded() const { return up_to(T, KEYS); }
};

// One head: y (T, D), and log of the sum of exponentials for each query.
void attend(Shape s, const Half* q, const Half* k, const Half* v, int64_t of_time, Half* y, int64_t of_y, float* logs,
            float scale) {
  const int64_t T = s.T, D = s.D, padded = s.padded();
  std::vector<uint32_t> keys(D / 2 * stride(padded)), values(padded / 2 * D);
  std::vector<float> products(ROWS * padded), mixed(ROWS * D);
  std::vector<Half> queries(ROWS * D), weights(ROWS * padded);
  pack_along_width(k, of_time, T, D, keys.data(), padded);
  pack_along_time(v, of_time, T, D, values.data(), padded);
  for (int64_t t = 0; t < T; t += ROWS) {
    const int64_t rows = std::min<int64_t>(ROWS, T - t), seen = up_to(t + rows, WIDE);
    for (int64_t r = 0; r < rows; ++r) std::copy_n(q + (t + r) * of_time, D, queries.data() + r * D);
    strip(queries.data(), D, keys.data(), stride(padded), products.data(), padded, D / 2, seen, false);
    float shares[ROWS];
    for (int64_t r = 0; r < rows; ++r) {
      auto [highest, total] =
          weigh(products.data() + r * padded, weights.data() + r * padded, t + r + 1, seen, scale);
      shares[r] = 1.f / total, logs[t + r] = highest * scale + std::log(total);
    }
    strip(weights.data(), padded, values.data(), D, mixed.data(), D, seen / 2, D, false);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t d = 0; d < D; d += LANES)
        write(y + (t + r) * of_y + d, _mm512_loadu_ps(mixed.data() + r * D + d) * shares[r]);
  }
}

}  // namespace

extern "C" {

// q, k and v lie alike; logs (B, H, T).
void attention_forward(Shape s, Heads q, Heads k, Heads v, Heads y, float* logs, float scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t head = 0; head < s.B * s.H; ++head) {
    const int64_t b = head / s.H, h = head % s.H;
    attend(s, q.at(b, h), k.at(b, h), v.at(b, h), q.of_time, y.at(b, h), y.of_time, logs + head * s.T, scale);
  }
}
}
