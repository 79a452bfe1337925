// Attention of a few rows of one sequence over its cached past, which lies as weights of products do, so that the same
// blocks multiply it: the rows' bits do not depend on how many they are.

namespace {

constexpr int PAGE = 64, QUERIES = 16;  // positions that are kept together; most rows of a block
constexpr int FEW = 4, MORE_TILES = 4;  // so few rows attend over more tiles at a time: one sum waits for the last

// Where a number of a position lies in its page of a head's past. Keys: positions are the outputs of a product, in tiles
// of LANES. Values: numbers are the outputs, positions the inputs.
template <class N>
struct Page {
  static constexpr int64_t n = Step<N>::n;
  N* numbers;
  int64_t D;  // filled up to LANES

  static N* packed(N* tile, int64_t input, int64_t lane) { return tile + (input - input % n) * LANES + lane * n + input % n; }
  void keep_key(int64_t position, int64_t d, N number) const {
    *packed(numbers + position / LANES * D * LANES, d, position % LANES) = number;
  }
  void keep_value(int64_t position, int64_t d, N number) const {
    *packed(numbers + d / LANES * PAGE * LANES, position, d % LANES) = number;
  }
  // LANES numbers at once, of a whole tile.
  void keep_keys(int64_t position, int64_t d, const N* from) const {
    N* to = packed(numbers + position / LANES * D * LANES, d, position % LANES);
    for (int64_t i = 0; i < LANES; i += n) std::memcpy(to + i * LANES, from + i, n * sizeof(N));
  }
  void keep_values(int64_t position, int64_t d, const N* from) const {
    N* to = packed(numbers + d / LANES * PAGE * LANES, position, 0);
    for (int64_t i = 0; i < LANES; ++i) to[i * n] = from[i];
  }
};

// Exponentials of the first n scores over the largest, in place as N, 0 from there up to `filled`; their sum.
template <class N>
float weigh(float* scores, int64_t n, int64_t filled) {
  F16 highest = all(-INFINITY), sums{};
  for (int64_t s = n; s < filled; ++s) scores[s] = -INFINITY;
  for (int64_t s = 0; s < filled; s += LANES) highest = most(highest, load<F16>(scores + s));
  float top = largest(highest);
  for (int64_t s = 0; s < filled; s += LANES) {
    F16 e = exponential(load<F16>(scores + s) - top);
    if (s + LANES > n)
      for (int64_t i = std::max<int64_t>(n - s, 0); i < LANES; ++i) e[i] = 0;
    sums += e;
    keep((N*)scores + s, e);
  }
  return total(sums);
}

// Mixes of values by softmax(scale q k): rows of consecutive positions of one sequence, the first of which sees `length`
// positions, its own with them. Of a page all keys of the head lie together, and all values. y: (rows, D) with y_stride
// between rows, D not filled up.
template <class N>
struct Attention {
  const N *q, *keys, *values;
  int64_t q_stride, page_stride, rows, length, D, filled_D;
  float scale;

  template <int R, int T>
  void scored(float* scores, int64_t stride, int64_t n_tiles) const {
    for (int64_t tile = 0, tiles; tile < n_tiles; tile += tiles) {
      const int64_t in_page = tile % (PAGE / LANES);
      tiles = even(std::min(n_tiles - tile, PAGE / LANES - in_page), T);
      const N* w = keys + tile * LANES / PAGE * page_stride + in_page * filled_D * LANES;
      for (int64_t row = 0, n; row < rows; row += n) {
        n = even(rows - row, R);
        F16 y[R * T];
        std::fill_n(y, n * tiles, F16{});
        multiply<R, T>(Numbers<N>{w, q + row * q_stride, filled_D * LANES, q_stride, filled_D}, n, tiles, y);
        for (int64_t r = 0; r < n; ++r)
          for (int64_t t = 0; t < tiles; ++t) store(scores + (row + r) * stride + (tile + t) * LANES, y[r * tiles + t] * scale);
      }
    }
  }

  template <int R, int T>
  void mixed(const N* weights, int64_t stride, int64_t filled, const float* sums, float* to, int64_t to_stride) const {
    const int64_t n_tiles = filled_D / LANES;
    for (int64_t tile = 0, tiles; tile < n_tiles; tile += tiles) {
      tiles = even(n_tiles - tile, T);
      for (int64_t row = 0, n; row < rows; row += n) {
        n = even(rows - row, R);
        F16 y[R * T];
        std::fill_n(y, n * tiles, F16{});
        const N* w = values + tile * PAGE * LANES;
        for (int64_t s = 0; s < filled; s += PAGE, w += page_stride) {
          Numbers<N> page{w, weights + row * stride + s, PAGE * LANES, stride, std::min<int64_t>(PAGE, filled - s)};
          multiply<R, T>(page, n, tiles, y);
        }
        for (int64_t r = 0; r < n; ++r)
          for (int64_t t = 0, d = tile * LANES; t < tiles; ++t, d += LANES)
            put(to + (row + r) * to_stride + d, y[r * tiles + t] / sums[row + r], D - d);
      }
    }
  }

  template <int R, int T>
  void attend(float* scores, int64_t stride, float* to, int64_t to_stride) const {
    int64_t filled = (length + rows - 1 + LANES - 1) / LANES * LANES;
    float sums[QUERIES];
    scored<R, T>(scores, stride, filled / LANES);
    for (int64_t r = 0; r < rows; ++r) sums[r] = weigh<N>(scores + r * stride, length + r, filled);
    mixed<R, T>((const N*)scores, stride * sizeof(float) / sizeof(N), filled, sums, to, to_stride);
  }

  // Scores has room for QUERIES rows of `stride` numbers.
  void attend(float* scores, int64_t stride, float* to, int64_t to_stride) const {
    if (rows <= FEW) attend<FEW, MORE_TILES>(scores, stride, to, to_stride);
    else attend<ROWS, TILES>(scores, stride, to, to_stride);
  }
};

}  // namespace
