// The decoder for rows of single tokens on a CPU: every weight is read once, in the order in which it lies in memory.
//
// Letters: N rows, C width, S cached time, D width of a head, H heads. A row's numbers do not depend on N: each row is
// summed by the same instructions in the same order, whoever else is there. Products of int8 and int4 weights take the
// input as int8 too, with a scale for each GROUP numbers of a row; those of bfloat16 take it as bfloat16; sums are
// float32 everywhere. Queries and weights of attention are rounded as the cache is.

extern "C" {
struct Layer {
  const float *norm1, *norm1_bias, *norm2, *norm2_bias;
  Linear qkv, out, up, down;
};
struct Model {
  int64_t n_layers, d_model, n_heads, d_ffn, activation, small_cache, n_positions;
  float eps, attention_scale, residual_scale, embedding_scale, logit_scale;
  const float *tokens, *positions, *norm, *norm_bias;
  const Layer* layers;
  Linear head;
};
}

namespace {

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

struct Rows {
  int64_t n;
  const int64_t *ids, *positions, *slots;

  // How many from this one on, before the last one, are of one sequence and follow each other.
  int64_t run(int64_t row, int64_t last) const {
    int64_t end = row + 1;
    while (end < last && end - row < QUERIES && slots[end] == slots[row] && positions[end] == positions[end - 1] + 1) ++end;
    return end - row;
  }
};

inline int64_t filled_width(const Model& m) { return (m.d_model / m.n_heads + LANES - 1) / LANES * LANES; }

// The threads of one call. They meet by looking at a number and not by sleeping: OpenMP's barrier puts a thread to sleep
// at once where any other thread of the process has a team of its own, and a call meets a hundred times.
class Team {
  static constexpr int LOOKS = 4000;
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<unsigned> round{0};

 public:
  void meet() {
    const unsigned now = round.load(std::memory_order_relaxed);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == omp_get_num_threads()) {
      arrived.store(0, std::memory_order_relaxed);
      return round.store(now + 1, std::memory_order_release);
    }
    for (int looks = 0; round.load(std::memory_order_acquire) == now; ++looks)
      looks < LOOKS ? pause() : std::this_thread::yield();
  }
};

// The decoder's blocks on all threads, between two meetings each: x (N, C) is the residual stream. K: what the cache and
// what meets it are kept as.
template <class K>
struct Pass {
  const Model& m;
  const Rows& rows;
  Team& team;
  K* cache;  // (slots, pages, L, 2, H, PAGE, D), D filled up to LANES, a page of a head as attention.h says
  float *x, *normed, *mixed, *up, *scores;
  K* q;  // (N, H, D), D filled up
  uint8_t* memory;

  Part mine(int64_t n) const { return part(n, omp_get_num_threads(), omp_get_thread_num()); }
  int64_t page_stride() const { return m.n_layers * 2 * m.n_heads * PAGE * filled_width(m); }
  K* past(int64_t layer, int64_t kind, int64_t slot, int64_t head) const {  // from its first page on
    return cache + slot * (m.n_positions / PAGE) * page_stride() +
           ((layer * 2 + kind) * m.n_heads + head) * PAGE * filled_width(m);
  }

  Input normalised(const Linear& w, const float* weight, const float* bias, int64_t n) const {
    Input input(w, memory, n);
    auto [from, to] = mine(n);
    for (int64_t row = from; row < to; ++row) {
      float* y = normed + row * m.d_model;
      normalise(x + row * m.d_model, weight, bias, m.d_model, m.eps, 1.f, y);
      input.take(w, row, y, m.d_model);
    }
    team.meet();
    return input;
  }

  Input taken(const Linear& w, const float* from_rows, int64_t width, int64_t n) const {
    team.meet();
    Input input(w, memory, n);
    auto [from, to] = mine(n);
    for (int64_t row = from; row < to; ++row) input.take(w, row, from_rows + row * width, width);
    team.meet();
    return input;
  }

  void add(const Linear& w, const Input& input, int64_t n) const {
    products(w, input, n, [&](int64_t row, int64_t first, F16 y) {
      float* to = x + row * m.d_model + first;
      if (first + LANES <= m.d_model) store(to, load<F16>(to) + m.residual_scale * y);
      else for (int64_t i = 0; i < m.d_model - first; ++i) to[i] += m.residual_scale * y[i];
    });
    team.meet();
  }

  void split(int64_t layer, int64_t row, int64_t first, F16 y) const {  // into queries, and keys and values kept
    const uint32_t C = m.d_model, D = C / m.n_heads, filled = filled_width(m);
    const int64_t at = rows.positions[row], page = at / PAGE * page_stride(), in_page = at % PAGE;
    K numbers[LANES];
    keep(numbers, y);
    for (uint32_t i = 0, end; i < LANES && first + i < 3 * C; i = end) {  // a part of one head
      const uint32_t place = first + i, kind = place / C, in_kind = place - kind * C, head = in_kind / D, d = in_kind - head * D;
      end = std::min<uint32_t>(LANES, i + D - d);
      if (kind == 0) {
        std::memcpy(q + (row * m.n_heads + head) * filled + d, numbers + i, (end - i) * sizeof(K));
        continue;
      }
      const Page<K> to{past(layer, kind - 1, rows.slots[row], head) + page, filled};
      const bool is_whole = d % LANES == 0 && end - i == LANES;
      if (is_whole && kind == 1) to.keep_keys(in_page, d, numbers);
      else if (is_whole) to.keep_values(in_page, d, numbers);
      else if (kind == 1) for (uint32_t k = i; k < end; ++k) to.keep_key(in_page, d + k - i, numbers[k]);
      else for (uint32_t k = i; k < end; ++k) to.keep_value(in_page, d + k - i, numbers[k]);
    }
  }

  void attend(int64_t layer, int64_t n_rows) const {  // a thread takes heads, or rows of a head, that follow each other
    const int64_t D = m.d_model / m.n_heads, filled = filled_width(m), stride = m.n_positions + LANES;
    float* own = scores + omp_get_thread_num() * stride * QUERIES;
    int64_t n_runs = 0;
    for (int64_t row = 0; row < n_rows; row += rows.run(row, n_rows)) ++n_runs;
    auto [from, to] = mine(m.n_heads * n_runs);
    for (int64_t row = 0, n, index = 0; row < n_rows; row += n, ++index) {
      n = rows.run(row, n_rows);
      for (int64_t head = 0, task = index; head < m.n_heads; ++head, task += n_runs) {
        if (task < from || task >= to) continue;
        const K *keys = past(layer, 0, rows.slots[row], head), *values = past(layer, 1, rows.slots[row], head);
        Attention<K>{q + (row * m.n_heads + head) * filled, keys, values, m.n_heads * filled, page_stride(), n,
                     rows.positions[row] + 1, D, filled, m.attention_scale}
            .attend(own, stride, mixed + row * m.d_model + head * D, m.d_model);
      }
    }
  }

  void remember(int64_t index) const {
    const Layer& layer = m.layers[index];
    Input input = normalised(layer.qkv, layer.norm1, layer.norm1_bias, rows.n);
    products(layer.qkv, input, rows.n, [&](int64_t row, int64_t first, F16 y) { split(index, row, first, y); });
    team.meet();
  }

  void compute(int64_t index, int64_t n) const {  // of the first n rows what the block adds to them
    const Layer& layer = m.layers[index];
    attend(index, n);
    add(layer.out, taken(layer.out, mixed, m.d_model, n), n);
    Input input = normalised(layer.up, layer.norm2, layer.norm2_bias, n);
    products(layer.up, input, n, [&](int64_t row, int64_t first, F16 y) {
      put(up + row * m.d_ffn + first, activated(y, m.activation), m.d_ffn - first);
    });
    add(layer.down, taken(layer.down, up, m.d_ffn, n), n);
  }

  void run(int64_t n_told, float* result) const {  // of other rows only what the cache is to hold
    const int64_t C = m.d_model, width = m.n_heads * filled_width(m);
    auto [from, to] = mine(rows.n);
    for (int64_t row = from; row < to; ++row) {
      if (width != C) std::memset(q + row * width, 0, width * sizeof(K));
      for (int64_t c = 0; c < C; ++c)
        x[row * C + c] = (m.tokens[rows.ids[row] * C + c] + m.positions[rows.positions[row] * C + c]) * m.embedding_scale;
    }
    team.meet();
    for (int64_t index = 0; index < m.n_layers; ++index) {
      remember(index);
      const int64_t n = index + 1 < m.n_layers ? rows.n : n_told;
      if (n) compute(index, n);
    }
    auto [first, end] = mine(n_told);
    for (int64_t row = first; row < end; ++row)
      normalise(x + row * C, m.norm, m.norm_bias, C, m.eps, m.logit_scale, result + row * C);
  }
};

// (n, n_in) -> (n, n_out) on all threads, where n_in is not filled up and each thread takes in what rows it made.
void multiplied(const Linear& w, int64_t n, int64_t n_in, const float* x, uint8_t* memory, float* y, Team& team) {
  Input input(w, memory, n);
  auto [from, to] = part(n, omp_get_num_threads(), omp_get_thread_num());
  for (int64_t row = from; row < to; ++row) input.take(w, row, x + row * n_in, n_in);
  team.meet();
  products(w, input, n, [&](int64_t row, int64_t first, F16 v) { put(y + row * w.n_out + first, v, w.n_out - first); });
}

template <class K>
void pass(const Model& m, const Rows& rows, int64_t n_told, Team& team, void* cache, float* f, float* result,
          float* scores) {
  const int64_t N = rows.n, C = m.d_model;
  float* up = f + 3 * N * C;
  float* weights = up + N * m.d_ffn;
  float* q = weights + omp_get_num_threads() * (m.n_positions + LANES) * QUERIES;
  uint8_t* memory = (uint8_t*)(q + N * m.n_heads * filled_width(m));
  Pass<K>{m, rows, team, (K*)cache, f, f + N * C, f + 2 * N * C, up, weights, (K*)q, memory}.run(n_told, result);
  if (scores) multiplied(m.head, n_told, C, result, memory, scores, team);
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

// Keys and values of rows of single tokens go to the cache; of the first n_told rows also the final states (n_told, C) are
// told and, unless scores is null, from these the scores (n_told, V) of every token. Work holds what `work_floats` of
// generate/kernel.py says.
void hidden(const Model* m, int64_t n, int64_t n_told, const int64_t* ids, const int64_t* positions, const int64_t* slots,
            void* cache, float* work, float* result, float* scores, int threads) {
  Rows rows{n, ids, positions, slots};
  Team team;
#pragma omp parallel num_threads(threads)
  (m->small_cache ? pass<uint16_t> : pass<float>)(*m, rows, n_told, team, cache, work, result, scores);
}

// (N, n_in) -> (N, n_out), where n_in is not filled up.
void product(const Linear* w, int64_t n, int64_t n_in, const float* x, float* work, float* y, int threads) {
  Team team;
#pragma omp parallel num_threads(threads)
  multiplied(*w, n, n_in, x, (uint8_t*)work, y, team);
}
}
