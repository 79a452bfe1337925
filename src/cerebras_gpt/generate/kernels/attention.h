// Attention of a few rows of one sequence over its cached past, which lies as weights of products do, so that the same
// blocks multiply it: the rows' bits do not depend on how many they are.

namespace {

constexpr int PAGE = 64, QUERIES = 16;  // positions that are kept together; most rows of a block

// Where a number of a position lies in a head's past. Keys: positions are the outputs of a product, in tiles of LANES.
// Values: numbers are the outputs, positions the inputs; of each PAGE positions all tiles before those of the next.
template <class N>
struct Past {
  int64_t D;  // filled up to LANES

  void keep_key(N* keys, int64_t position, int64_t d, N number) const {
    keys[position / LANES * D * LANES + packed(d, position % LANES, d)] = number;
  }
  void keep_value(N* values, int64_t position, int64_t d, N number) const {
    int64_t tile = position / PAGE * (D / LANES) + d / LANES;
    values[tile * PAGE * LANES + packed(position % PAGE, d % LANES, position)] = number;
  }
  static int64_t packed(int64_t input, int64_t lane, int64_t parity) {
    constexpr int64_t n = Step<N>::n;
    return (input - parity % n) * LANES + lane * n + parity % n;
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
// positions, its own with them. y: (rows, D) with y_stride between rows, D not filled up.
template <class N>
struct Attention {
  const N *q, *keys, *values;
  int64_t q_stride, rows, length, D, filled_D;
  float scale;

  void scored(float* scores, int64_t stride, int64_t n_tiles) const {
    for (int64_t tile = 0, tiles; tile < n_tiles; tile += tiles) {
      tiles = even(n_tiles - tile, TILES);
      for (int64_t row = 0, n; row < rows; row += n) {
        n = even(rows - row, ROWS);
        F16 y[ROWS * TILES] = {};
        const N* w = keys + tile * filled_D * LANES;
        multiply<ROWS, TILES>(Numbers<N>{w, q + row * q_stride, filled_D * LANES, q_stride, filled_D}, n, tiles, y);
        for (int64_t r = 0; r < n; ++r)
          for (int64_t t = 0; t < tiles; ++t) store(scores + (row + r) * stride + (tile + t) * LANES, y[r * tiles + t] * scale);
      }
    }
  }

  void mixed(const N* weights, int64_t stride, int64_t filled, const float* sums, float* to, int64_t to_stride) const {
    const int64_t n_tiles = filled_D / LANES;
    for (int64_t tile = 0, tiles; tile < n_tiles; tile += tiles) {
      tiles = even(n_tiles - tile, TILES);
      for (int64_t row = 0, n; row < rows; row += n) {
        n = even(rows - row, ROWS);
        F16 y[ROWS * TILES] = {};
        for (int64_t s = 0; s < filled; s += PAGE) {
          const N* w = values + (s * n_tiles + tile * PAGE) * LANES;
          Numbers<N> page{w, weights + row * stride + s, PAGE * LANES, stride, std::min<int64_t>(PAGE, filled - s)};
          multiply<ROWS, TILES>(page, n, tiles, y);
        }
        for (int64_t r = 0; r < n; ++r)
          for (int64_t t = 0, d = tile * LANES; t < tiles; ++t, d += LANES)
            put(to + (row + r) * to_stride + d, y[r * tiles + t] / sums[row + r], D - d);
      }
    }
  }

  // Scores has room for QUERIES rows of `stride` numbers.
  void attend(float* scores, int64_t stride, float* to, int64_t to_stride) const {
    int64_t filled = (length + rows - 1 + LANES - 1) / LANES * LANES;
    float sums[QUERIES];
    scored(scores, stride, filled / LANES);
    for (int64_t r = 0; r < rows; ++r) sums[r] = weigh<N>(scores + r * stride, length + r, filled);
    mixed((const N*)scores, stride * sizeof(float) / sizeof(N), filled, sums, to, to_stride);
  }
};

}  // namespace
