// bfloat16 numbers sixteen at a time, computed in float32. First of the parts of one source (model/kernel.py joins
// them); for processors whose vectors multiply bfloat16 pairs, all others are left to torch.

#ifndef __AVX512BF16__
#error this processor has no bfloat16 products
#endif

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace {

constexpr int LANES = 16;
typedef uint16_t Half;  // the bits of a bfloat16
typedef __m512 F16;

inline F16 all(float x) { return _mm512_set1_ps(x); }
inline __mmask16 first(int64_t n) { return n >= LANES ? 0xffff : __mmask16((1u << n) - 1); }
inline F16 widened(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
inline F16 read(const Half* x) { return widened(_mm256_loadu_si256((const __m256i*)x)); }
inline F16 read(const Half* x, __mmask16 m) { return widened(_mm256_maskz_loadu_epi16(m, x)); }
inline F16 read(const float* x, __mmask16 m) { return _mm512_maskz_loadu_ps(m, x); }
inline __m256i narrowed(F16 v) { return (__m256i)_mm512_cvtneps_pbh(v); }
inline void write(Half* to, F16 v) { _mm256_storeu_si256((__m256i*)to, narrowed(v)); }
inline void write(Half* to, F16 v, __mmask16 m) { _mm256_mask_storeu_epi16(to, m, narrowed(v)); }
inline void write(float* to, F16 v, __mmask16 m) { _mm512_mask_storeu_ps(to, m, v); }
inline float one(Half x) {
  uint32_t bits = uint32_t(x) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}
inline float sum(F16 v) { return _mm512_reduce_add_ps(v); }
inline int64_t up_to(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Cephes' expf: 2^n times a polynomial of degree 6.
inline F16 exponential(F16 x) {
  x = _mm512_max_ps(all(-87.f), x);  // in this order what is no number stays none
  F16 n = _mm512_roundscale_ps(x * 1.44269504f, 0);
  x = _mm512_fnmadd_ps(n, all(0.693359375f), x);
  x = _mm512_fmadd_ps(n, all(2.12194440e-4f), x);
  F16 y = _mm512_fmadd_ps(x, all(1.9875691500e-4f), all(1.3981999507e-3f));
  y = _mm512_fmadd_ps(y, x, all(8.3334519073e-3f));
  y = _mm512_fmadd_ps(y, x, all(4.1665795894e-2f));
  y = _mm512_fmadd_ps(y, x, all(1.6666665459e-1f));
  y = _mm512_fmadd_ps(y, x, all(5.0000001201e-1f));
  y = _mm512_fmadd_ps(y, x * x, x + all(1.f));
  return _mm512_scalef_ps(y, n);
}

}  // namespace
