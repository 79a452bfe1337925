// Weights rounded and laid out as products read them, on all threads (generate/weights.py says what the layout is).

namespace {

struct Group {
  alignas(64) int8_t codes[GROUP];
  uint16_t scale;
};

// The nearest codes of n numbers and zeros: their scale puts the number of largest size on the smallest code.
Group quantised(const float* x, int64_t n, bool half) {
  const float smallest = half ? -8 : -127;
  Group made;
  float v[GROUP] = {};
  if (n < GROUP) std::memcpy(v, x, n * 4), x = v;
  F16 a = load<F16>(x), b = load<F16>(x + LANES);
  float high = largest(most(a, b)), low = -largest(most(-a, -b)), stray = total(a * 0.f + b * 0.f);
  made.scale = bfloat((-low > high ? low : high) / smallest + stray);  // NaN if a number is not finite
  float scale = one(made.scale), inverse = scale == 0 || stray != 0 ? 0.f : 1.f / scale;
  const F16 low_end = all(smallest), high_end = all(-smallest - half);
  B16 codes[2] = {bytes(nearest(least(most(a * inverse, low_end), high_end))),
                  bytes(nearest(least(most(b * inverse, low_end), high_end)))};
  std::memcpy(made.codes, codes, GROUP);
  return made;
}

// 4 bytes of one row, then of the next; of half bytes the first 4 and the second 4 of 8 share theirs.
void place(const Group& group, bool half, int64_t lane, uint8_t* to) {
  const int zero = half ? 8 : 128;
  for (int i = 0; i < GROUP; ++i) {
    uint8_t code = uint8_t(group.codes[i] + zero);
    if (!half) to[i / 4 * LANES * 4 + lane * 4 + i % 4] = code;
    else if (i % 8 < 4) to[i / 8 * LANES * 4 + lane * 4 + i % 4] = code;
    else to[i / 8 * LANES * 4 + lane * 4 + i % 4] |= code << 4;
  }
}

void pack_tile(const Linear& w, int64_t tile, const float* weight, int64_t n_in) {
  const int64_t groups = w.n_in / GROUP, bytes_of[] = {4 * GROUP, 2 * GROUP, GROUP, GROUP / 2};
  for (int64_t at = tile * groups, g = 0; g < groups; ++g, ++at)
    for (int64_t r = 0; r < LANES; ++r) {
      uint8_t* to = (uint8_t*)w.codes + at * LANES * bytes_of[w.kind];
      float x[GROUP] = {};
      if (tile * LANES + r < w.n_out && g * GROUP < n_in)
        std::memcpy(x, weight + (tile * LANES + r) * n_in + g * GROUP, std::min<int64_t>(GROUP, n_in - g * GROUP) * 4);
      if (w.kind == FLOAT32) {
        for (int i = 0; i < GROUP; ++i) ((float*)to)[i * LANES + r] = x[i];
      } else if (w.kind == BFLOAT16) {
        uint32_t pairs[GROUP / 2];
        keep((uint16_t*)pairs, load<F16>(x)), keep((uint16_t*)pairs + LANES, load<F16>(x + LANES));
        for (int i = 0; i < GROUP / 2; ++i) ((uint32_t*)to)[i * LANES + r] = pairs[i];
      } else {
        Group group = quantised(x, GROUP, w.kind == INT4);
        place(group, w.kind == INT4, r, to);
        ((uint16_t*)w.scales)[at * LANES + r] = group.scale;
      }
    }
}

}  // namespace

extern "C" {

// Fills the codes and scales of w from its weight (n_out, n_in), where n_in is not filled up.
void pack(const Linear* w, const float* weight, int64_t n_in, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t tile = 0; tile < (w->n_out + LANES - 1) / LANES; ++tile) pack_tile(*w, tile, weight, n_in);
}

// A weight (n_out, n_in) becomes what is left of it in int8 or int4.
void round_weight(float* weight, int64_t n_out, int64_t n_in, int64_t kind, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t row = 0; row < n_out; ++row)
    for (int64_t first = 0; first < n_in; first += GROUP) {
      float* x = weight + row * n_in + first;
      int64_t n = std::min<int64_t>(GROUP, n_in - first);
      Group group = quantised(x, n, kind == INT4);
      for (int64_t i = 0; i < n; ++i) x[i] = group.codes[i] * one(group.scale);
    }
}
}
