// Products of rows with packed weights. Weights lie in tiles of LANES output rows (generate/weights.py says how); a block
// of some input rows and some tiles is summed at a time, each row and output along the inputs, one after the other: so a
// row's bits depend neither on the number of rows nor on the block that it falls into.

namespace {

constexpr int GROUP = 32;
constexpr int LONE_ROWS = 2, LONE_CODE_ROWS = 4;  // up to so many read one tile at a time: memory likes one stream
#ifdef __AVX512F__
constexpr int ROWS = 8, TILES = 3;  // the most of a block
constexpr int CODE_ROWS = 6, CODE_TILES = 2;  // of codes there are two sums for each output
#else
constexpr int ROWS = 6, TILES = 1;
constexpr int CODE_ROWS = 2, CODE_TILES = 1;
#endif
enum Kind { FLOAT32, BFLOAT16, INT8, INT4 };

}  // namespace

extern "C" {
struct Linear {
  const uint8_t* codes;
  const uint16_t* scales;
  const float* bias;  // filled up to LANES, or null
  int64_t n_in, n_out, kind;  // n_in is filled up to GROUP
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
      int64_t i = 0;
      for (; i + LANES <= n; i += LANES) keep((uint16_t*)to + i, load<F16>(x + i));
      for (; i < n; ++i) ((uint16_t*)to)[i] = bfloat(x[i]);
      std::memset(to + n * 2, 0, stride - n * 2);
    } else {
      for (int64_t g = 0; g < n_groups; ++g) group(w.kind == INT8 ? 128 : 8, row * n_groups + g, x + g * GROUP,
                                                   std::min<int64_t>(GROUP, n - g * GROUP), (int8_t*)to + g * GROUP);
    }
  }

  void group(int zero, int64_t at, const float* x, int64_t n, int8_t* to) const {
    float v[GROUP] = {};
    if (n < GROUP) std::memcpy(v, x, std::max<int64_t>(n, 0) * 4), x = v;
    F16 a = load<F16>(x), b = load<F16>(x + LANES);
    U16 sizes = most((U16)a & ~SIGN, (U16)b & ~SIGN);  // as whole numbers they have the order of the numbers
    uint32_t bits = largest(sizes);
    float top = from_bits(bits - U16{})[0], stray = bits < INFINITE ? 0.f : NAN;  // to be passed on
    float inverse = stray == 0 && top > 0 ? 127.f / top : 0.f;
    if (inverse == 0) a = b = F16{};
    I16 low = nearest(a * inverse), high = nearest(b * inverse);
    B16 codes[2] = {bytes(low), bytes(high)};
    std::memcpy(to, codes, GROUP);
    scales[at] = top / 127.f + stray, starts[at] = -zero * total(low + high);
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

// What a sum takes in one step: LANES numbers and one input, or LANES pairs of bfloat16 and a pair.
inline F16 step(F16 sum, const F16 w, float x) { return sum + w * x; }
#if defined(__AVX512BF16__)
inline F16 step(F16 sum, const U16 w, uint32_t x) {
  return (F16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(x));
}
#else
inline F16 step(F16 sum, const U16 w, uint32_t x) {
  sum += from_bits(w << 16) * one(uint16_t(x));
  return sum + from_bits(w & 0xffff0000u) * one(uint16_t(x >> 16));
}
#endif
template <class N>
struct Step;
template <>
struct Step<float> {
  typedef F16 Weights;
  typedef float Inputs;
  enum { n = 1 };
};
template <>
struct Step<uint16_t> {
  typedef U16 Weights;
  typedef uint32_t Inputs;
  enum { n = 2 };
};

// A block of numbers as they are: tiles that lie w_stride numbers apart, rows that lie x_stride apart, and n numbers of
// each; adds to y (R, T).
template <class N>
struct Numbers {
  const N *w, *x;
  int64_t w_stride, x_stride, n;

  template <int R, int T>
  void multiply(F16* y) const {
    F16 sum[R][T];
    std::memcpy(sum, y, sizeof sum);
    for (int64_t i = 0; i < n; i += Step<N>::n) {
      typename Step<N>::Weights v[T];
      for (int t = 0; t < T; ++t) v[t] = load<typename Step<N>::Weights>(w + t * w_stride + i * LANES);
      for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) sum[r][t] = step(sum[r][t], v[t], load<typename Step<N>::Inputs>(x + r * x_stride + i));
    }
    std::memcpy(y, sum, sizeof sum);
  }
};

// A block of codes: tiles from one on, rows from one on; adds to y (R, T).
template <bool HALF>
struct Codes {
  const Linear& w;
  const Input& x;
  int64_t tile, row;

  template <int R, int T>
  void multiply(F16* y) const {
    const int64_t G = x.n_groups, w_stride = w.n_in * LANES / (HALF ? 2 : 1);
    const uint8_t *from = w.codes + tile * w_stride, *in = x.numbers + row * x.stride;
    const uint16_t* scales = w.scales + tile * G * LANES;
    F16 all_groups[R][T];
    std::memcpy(all_groups, y, sizeof all_groups);
    for (int64_t g = 0; g < G; ++g, scales += LANES, in += GROUP, from += GROUP * LANES / (HALF ? 2 : 1)) {
      I16 sum[R][T];
      for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) sum[r][t] = x.starts[(row + r) * G + g] - I16{};
      for (int i = 0; i < GROUP; i += HALF ? 8 : 4) {
        U16 v[T];
        for (int t = 0; t < T; ++t) v[t] = load<U16>(from + t * w_stride + i * (HALF ? 8 : 16));
        for (int half = 0; half < (HALF ? 2 : 1); ++half) {
          for (int r = 0; r < R; ++r) {
            int32_t numbers = load<int32_t>(in + r * x.stride + i + 4 * half);
            for (int t = 0; t < T; ++t)
              sum[r][t] = dot4(sum[r][t], HALF ? (half ? v[t] >> 4 : v[t]) & 0x0f0f0f0fu : v[t], numbers);
          }
        }
      }
      for (int t = 0; t < T; ++t) {
        F16 scale = wide(scales + t * G * LANES);
        for (int r = 0; r < R; ++r)
          all_groups[r][t] += __builtin_convertvector(sum[r][t], F16) * (scale * x.scales[(row + r) * G + g]);
      }
    }
    std::memcpy(y, all_groups, sizeof all_groups);
  }
};

// A block of up to R rows and T tiles, as a function of its own for every size.
template <int R, int T, class Block>
void multiply(const Block& block, int rows, int tiles, F16* y) {
  if constexpr (R > 1)
    if (rows < R) return multiply<R - 1, T>(block, rows, tiles, y);
  if constexpr (T > 1)
    if (tiles < T) return multiply<R, T - 1>(block, rows, tiles, y);
  block.template multiply<R, T>(y);
}

struct Part {
  int64_t from, to;
};
inline Part part(int64_t n, int64_t of, int64_t mine) { return {n * mine / of, n * (mine + 1) / of}; }
// The next of n pieces in equal steps of at most most: 9 by 4 is 3 and 3 and 3.
inline int64_t even(int64_t n, int64_t most) { return (n + (n + most - 1) / most - 1) / ((n + most - 1) / most); }

// Every product of this thread's tiles; done(row, first output, LANES numbers) takes them.
template <int R, int T, int LONE, class Block, class Done>
void products(const Linear& w, int64_t n, Block block, Done done) {
  auto [from, to] = part((w.n_out + LANES - 1) / LANES, omp_get_num_threads(), omp_get_thread_num());
  for (int64_t tile = from, tiles; tile < to; tile += tiles) {
    tiles = even(to - tile, n <= LONE ? 1 : T);
    for (int64_t row = 0, rows; row < n; row += rows) {
      rows = even(n - row, R);
      F16 y[R * T];
      std::fill_n(y, rows * tiles, F16{});
      multiply<R, T>(block(tile, row), rows, tiles, y);
      for (int64_t t = 0; t < tiles; ++t) {
        F16 bias = w.bias ? load<F16>(w.bias + (tile + t) * LANES) : F16{};
        for (int64_t r = 0; r < rows; ++r) done(row + r, (tile + t) * LANES, y[r * tiles + t] + bias);
      }
    }
  }
}

template <class N, class Done>
void number_products(const Linear& w, const Input& x, int64_t n, Done done) {
  products<ROWS, TILES, LONE_ROWS>(w, n, [&](int64_t tile, int64_t row) {
    return Numbers<N>{(const N*)w.codes + tile * w.n_in * LANES, (const N*)x.numbers + row * w.n_in, w.n_in * LANES,
                      w.n_in, w.n_in};
  }, done);
}

template <bool HALF, class Done>
void code_products(const Linear& w, const Input& x, int64_t n, Done done) {
  products<CODE_ROWS, CODE_TILES, LONE_CODE_ROWS>(w, n, [&](int64_t tile, int64_t row) {
    return Codes<HALF>{w, x, tile, row};
  }, done);
}

template <class Done>
void products(const Linear& w, const Input& x, int64_t n, Done done) {
  switch (w.kind) {
    case FLOAT32: return number_products<float>(w, x, n, done);
    case BFLOAT16: return number_products<uint16_t>(w, x, n, done);
    case INT8: return code_products<false>(w, x, n, done);
    default: return code_products<true>(w, x, n, done);
  }
}

}  // namespace
