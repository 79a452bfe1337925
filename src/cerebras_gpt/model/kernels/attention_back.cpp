// The gradients of attention.cpp, its weights computed again from the logs of their sums. Rows are keys, columns queries.

namespace {

// What one head needs; times are padded with zeros.
struct Back {
  Shape s;
  float scale;
  int64_t padded = s.padded();
  std::vector<uint32_t> q_wide, d_wide, q_long, d_long;  // pairs along D (D / 2, T), pairs along T (T / 2, D)
  std::vector<Half> k_turned;                            // (D, T)
  std::vector<float> d_q, delta, logs;                   // (D, T), (T,), (T,)
  std::vector<float> products, d_weights, d_k, d_v;      // of a block: 2 x (KEYS, QUERIES), 2 x (KEYS, D)
  std::vector<Half> k, v, weights, d_products;           // 2 x (KEYS, D), 2 x (KEYS, QUERIES)
  std::vector<uint32_t> d_pairs;                         // (KEYS / 2, QUERIES)

  Back(Shape s, float scale) : s(s), scale(scale) {
    const int64_t D = s.D, block = KEYS * QUERIES;
    for (auto* x : {&q_wide, &d_wide}) x->resize(D / 2 * stride(padded));
    for (auto* x : {&q_long, &d_long}) x->resize(D / 2 * padded);
    k_turned.resize(D * padded), d_q.resize(D * padded), delta.resize(padded), logs.resize(padded);
    for (auto* x : {&products, &d_weights}) x->resize(block);
    for (auto* x : {&d_k, &d_v}) x->resize(KEYS * D);
    for (auto* x : {&k, &v}) x->resize(KEYS * D);
    for (auto* x : {&weights, &d_products}) x->resize(block);
    d_pairs.resize(block / 2);
  }

  // Rows from t on, zeros behind the last.
  void take(const Half* from, int64_t of_time, int64_t t, std::vector<Half>& to) const {
    for (int64_t i = 0; i < KEYS; ++i)
      if (t + i < s.T)
        std::copy_n(from + (t + i) * of_time, s.D, to.data() + i * s.D);
      else
        std::fill_n(to.data() + i * s.D, s.D, Half(0));
  }

  void begin(const Half* q, const Half* k, int64_t of_time, const Half* y, const Half* d_y, int64_t of_y, int64_t of_d,
             const float* their_logs) {
    const int64_t T = s.T, D = s.D;
    pack_along_width(q, of_time, T, D, q_wide.data(), padded);
    pack_along_time(q, of_time, T, D, q_long.data(), padded);
    pack_along_width(d_y, of_d, T, D, d_wide.data(), padded);
    pack_along_time(d_y, of_d, T, D, d_long.data(), padded);
    turn_keys(k, of_time);
    std::fill(d_q.begin(), d_q.end(), 0.f);
    for (int64_t t = 0; t < padded; ++t) {
      F16 total = {};
      for (int64_t d = 0; t < T && d < D; d += LANES)
        total = _mm512_fmadd_ps(read(y + t * of_y + d), read(d_y + t * of_d + d), total);
      delta[t] = sum(total), logs[t] = t < T ? their_logs[t] : INFINITY;
    }
  }

  // (T, D) -> (D, T), two times in a word.
  void turn_keys(const Half* from, int64_t of_time) {
    const int64_t D = s.D;
    for (int64_t t = 0; t < padded; t += 2 * LANES)
      for (int64_t d = 0; d < D; d += LANES) {
        __m512i row[LANES];
        for (int i = 0; i < LANES; ++i) {
          const Half* x = from + (t + 2 * i) * of_time + d;
          const __m256i even = t + 2 * i < s.T ? _mm256_loadu_si256((const __m256i*)x) : __m256i{};
          const __m256i odd = t + 2 * i + 1 < s.T ? _mm256_loadu_si256((const __m256i*)(x + of_time)) : __m256i{};
          row[i] = paired(even, odd);
        }
        turn(row);
        for (int i = 0; i < LANES; ++i) _mm512_storeu_si512(k_turned.data() + (d + i) * padded + t, row[i]);
      }
  }

  // Weights and the gradients of products of two keys: from a column of the block on.
  void differentiate(int64_t row, int64_t from, int64_t key, int64_t query) {
    for (int64_t c = from; c < QUERIES; c += LANES) {
      const F16 log = _mm512_loadu_ps(logs.data() + query + c), off = _mm512_loadu_ps(delta.data() + query + c);
      __m256i halves[2];
      for (int64_t i = 0; i < 2; ++i) {
        const int64_t at = (row + i) * QUERIES + c, hidden = key + row + i - query - c;  // so many may not see this key
        const __mmask16 m = hidden <= 0 ? 0xffff : hidden >= LANES ? 0 : __mmask16(0xffff << hidden);
        F16 p = exponential(_mm512_fmsub_ps(_mm512_loadu_ps(products.data() + at), all(scale), log));
        p = _mm512_maskz_mov_ps(m, p);
        write(weights.data() + at, p);
        halves[i] = narrowed(p * (_mm512_loadu_ps(d_weights.data() + at) - off) * scale);
        _mm256_storeu_si256((__m256i*)(d_products.data() + at), halves[i]);
      }
      _mm512_storeu_si512(d_pairs.data() + row / 2 * QUERIES + c, paired(halves[0], halves[1]));
    }
  }

  // One block: the gradients that these queries give these keys, and these keys them.
  void block(int64_t key, int64_t query) {
    const int64_t D = s.D;
    for (int64_t row = 0; row < KEYS; row += ROWS) {
      const int64_t from = std::max<int64_t>(0, key + row - query) / WIDE * WIDE, at = row * QUERIES + from;
      const int64_t width = QUERIES - from;
      const int64_t wide = stride(padded), column = query + from;
      strip(k.data() + row * D, D, q_wide.data() + column, wide, products.data() + at, QUERIES, D / 2, width, false);
      strip(v.data() + row * D, D, d_wide.data() + column, wide, d_weights.data() + at, QUERIES, D / 2, width, false);
      for (int64_t i = 0; i < ROWS; i += 2) {
        std::fill_n(d_pairs.data() + (row + i) / 2 * QUERIES, from, 0u);
        differentiate(row + i, from, key, query);
      }
      const int64_t pair = column / 2 * D;
      strip(weights.data() + at, QUERIES, d_long.data() + pair, D, d_v.data() + row * D, D, width / 2, D, true);
      strip(d_products.data() + at, QUERIES, q_long.data() + pair, D, d_k.data() + row * D, D, width / 2, D, true);
    }
    for (int64_t d = 0; d < D; d += ROWS)
      strip(k_turned.data() + d * padded + key, padded, d_pairs.data(), QUERIES, d_q.data() + d * padded + query, padded,
            KEYS / 2, QUERIES, true);
  }

  void write_rows(const std::vector<float>& from, Half* to, int64_t of_time, int64_t t) const {
    for (int64_t i = 0; i < KEYS && t + i < s.T; ++i)
      for (int64_t d = 0; d < s.D; d += LANES) write(to + (t + i) * of_time + d, _mm512_loadu_ps(from.data() + i * s.D + d));
  }

  void write_queries(Half* to, int64_t of_time) const {
    for (int64_t t = 0; t < s.T; t += LANES)
      for (int64_t d = 0; d < s.D; d += LANES) {
        __m512i row[LANES];
        for (int i = 0; i < LANES; ++i) row[i] = _mm512_loadu_si512(d_q.data() + (d + i) * padded + t);
        turn(row);
        for (int i = 0; i < LANES && t + i < s.T; ++i) write(to + (t + i) * of_time + d, _mm512_castsi512_ps(row[i]));
      }
  }
};

}  // namespace

extern "C" {

// q, k and v lie alike, as do their gradients; logs (B, H, T).
void attention_backward(Shape s, Heads q, Heads k, Heads v, Heads y, Heads d_y, Heads d_q, Heads d_k, Heads d_v,
                        const float* logs, float scale, int threads) {
#pragma omp parallel num_threads(threads)
  {
    Back back(s, scale);
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < s.B * s.H; ++head) {
      const int64_t b = head / s.H, h = head % s.H;
      back.begin(q.at(b, h), k.at(b, h), q.of_time, y.at(b, h), d_y.at(b, h), y.of_time, d_y.of_time, logs + head * s.T);
      for (int64_t key = 0; key < s.T; key += KEYS) {
        back.take(k.at(b, h), k.of_time, key, back.k);
        back.take(v.at(b, h), v.of_time, key, back.v);
        std::fill(back.d_k.begin(), back.d_k.end(), 0.f);
        std::fill(back.d_v.begin(), back.d_v.end(), 0.f);
        for (int64_t query = key; query < s.T; query += QUERIES) back.block(key, query);
        back.write_rows(back.d_k, d_k.at(b, h), d_k.of_time, key);
        back.write_rows(back.d_v, d_v.at(b, h), d_v.of_time, key);
      }
      back.write_queries(d_q.at(b, h), d_q.of_time);
    }
  }
}
}
