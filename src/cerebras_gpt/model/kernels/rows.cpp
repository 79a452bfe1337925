// What happens to each row alone: layer normalisation and the loss. N rows, C width, V vocabulary.

namespace {

constexpr int64_t PARTS = 64;  // sums over rows are formed in so many parts, whatever the number of threads

// Of a row: y = (x - mean) / deviation * weight + bias.
void normalize(const Half* x, const float* weight, const float* bias, Half* y, float* kept, int64_t C, float eps) {
  F16 total = {}, squares = {};
  for (int64_t c = 0; c < C; c += LANES) total += read(x + c, first(C - c));
  const float mean = sum(total) / C;
  for (int64_t c = 0; c < C; c += LANES) {
    const __mmask16 m = first(C - c);
    F16 off = _mm512_maskz_sub_ps(m, read(x + c, m), all(mean));
    squares = _mm512_fmadd_ps(off, off, squares);
  }
  const float scale = 1.f / std::sqrt(sum(squares) / C + eps);
  for (int64_t c = 0; c < C; c += LANES) {
    const __mmask16 m = first(C - c);
    F16 unit = (read(x + c, m) - all(mean)) * scale;
    write(y + c, _mm512_fmadd_ps(unit, read(weight + c, m), read(bias + c, m)), m);
  }
  kept[0] = mean, kept[1] = scale;
}

// The gradient of a row, and what it adds to those of weight and bias.
void normalize_back(const Half* x, const Half* d_y, const float* weight, const float* kept, Half* d_x, float* d_weight,
                    float* d_bias, int64_t C) {
  const float mean = kept[0], scale = kept[1];
  F16 total = {}, along = {};
  for (int64_t c = 0; c < C; c += LANES) {
    const __mmask16 m = first(C - c);
    F16 unit = (read(x + c, m) - all(mean)) * scale, d = read(d_y + c, m);
    write(d_weight + c, _mm512_fmadd_ps(d, unit, read(d_weight + c, m)), m);
    write(d_bias + c, read(d_bias + c, m) + d, m);
    d *= read(weight + c, m);
    total += d, along = _mm512_fmadd_ps(d, unit, along);
  }
  const F16 a = all(sum(total) / C), b = all(sum(along) / C);
  for (int64_t c = 0; c < C; c += LANES) {
    const __mmask16 m = first(C - c);
    F16 unit = (read(x + c, m) - all(mean)) * scale, d = read(d_y + c, m) * read(weight + c, m);
    write(d_x + c, (d - a - unit * b) * scale, m);
  }
}

// Nats of a row's target; softmax minus one-hot takes the place of its logits. There is room for V exponentials.
float to_gradient(Half* logits, int64_t target, int64_t V, int64_t width, float* exponentials) {
  const float right = one(logits[target]);
  F16 top = all(-INFINITY), total = {};
  for (int64_t v = 0; v < V; v += LANES) {
    const __mmask16 m = first(V - v);
    top = _mm512_mask_max_ps(top, m, top, read(logits + v, m));
  }
  const float highest = _mm512_reduce_max_ps(top);
  for (int64_t v = 0; v < V; v += LANES) {
    const __mmask16 m = first(V - v);
    F16 e = _mm512_maskz_mov_ps(m, exponential(read(logits + v, m) - all(highest)));
    _mm512_storeu_ps(exponentials + v, e);
    total += e;
  }
  const float denominator = sum(total), share = 1.f / denominator;
  const float p = std::exp(right - highest) * share;
  for (int64_t v = 0; v < V; v += LANES) write(logits + v, _mm512_loadu_ps(exponentials + v) * share, first(width - v));
  std::fill(logits + std::min(width, up_to(V, LANES)), logits + width, Half(0));
  write(logits + target, all(p - 1.f), 1);
  return std::log(denominator) + highest - right;
}

}  // namespace

extern "C" {

// x, y (N, C); kept (N, 2): mean and 1 / deviation.
void norm_forward(const Half* x, const float* weight, const float* bias, Half* y, float* kept, int64_t N, int64_t C,
                  float eps, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t n = 0; n < N; ++n) normalize(x + n * C, weight, bias, y + n * C, kept + 2 * n, C, eps);
}

// d_affine (2, C): the gradients of weight and bias.
void norm_backward(const Half* x, const Half* d_y, const float* weight, const float* kept, Half* d_x, float* d_affine,
                   int64_t N, int64_t C, int threads) {
  std::vector<float> parts(PARTS * 2 * C);
#pragma omp parallel for num_threads(threads)
  for (int64_t part = 0; part < PARTS; ++part) {
    float* mine = parts.data() + part * 2 * C;
    for (int64_t n = part * N / PARTS; n < (part + 1) * N / PARTS; ++n)
      normalize_back(x + n * C, d_y + n * C, weight, kept + 2 * n, d_x + n * C, mine, mine + C, C);
  }
  std::fill(d_affine, d_affine + 2 * C, 0.f);
  for (int64_t part = 0; part < PARTS; ++part)
    for (int64_t c = 0; c < 2 * C; ++c) d_affine[c] += parts[part * 2 * C + c];
}

// logits (N, width) become gradients, the columns from V on zeros; targets and nats (N,).
void loss_rows(Half* logits, const int64_t* targets, float* nats, int64_t N, int64_t V, int64_t width, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> room(up_to(V, LANES));
#pragma omp for
    for (int64_t n = 0; n < N; ++n) nats[n] = to_gradient(logits + n * width, targets[n], V, width, room.data());
  }
}
}
