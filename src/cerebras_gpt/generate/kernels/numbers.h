// Numbers in vectors of LANES: loads, conversions, and the functions that a decoder needs. First of the parts of one source
// (generate/kernel.py joins them).

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
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

constexpr int LANES = 16;
enum Activation { GELU, GELU_NEW, RELU };

typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef uint32_t U16 __attribute__((vector_size(64)));
typedef uint16_t H16 __attribute__((vector_size(32)));
typedef int8_t B16 __attribute__((vector_size(16)));
template <class N, int n>
struct Vector {
  typedef N of __attribute__((vector_size(n * sizeof(N))));
};
constexpr uint32_t SIGN = 0x80000000u, INFINITE = 0x7f800000u;
constexpr float MAGIC = 12582912.f;  // added to a number of less than 2^22, it leaves no room for what is behind the point

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

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
inline H16 bfloats(F16 x) {
#ifdef __AVX512BF16__
  return (H16)_mm512_cvtneps_pbh((__m512)x);
#else
  U16 bits = (U16)x, up = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return __builtin_convertvector((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 64u : up, H16);
#endif
}
inline F16 whole(F16 x) { return (x + MAGIC) - MAGIC; }
inline I16 nearest(F16 x) { return (I16)(x + MAGIC) - (I16)all(MAGIC); }
inline B16 bytes(I16 x) { return __builtin_convertvector(x, B16); }
inline void keep(float* to, F16 x) { store(to, x); }
inline void keep(uint16_t* to, F16 x) {
  H16 halves = bfloats(x);
  std::memcpy(to, &halves, sizeof halves);
}
template <class V>
inline V least(V a, V b) { return a < b ? a : b; }
template <class V>
inline V most(V a, V b) { return a > b ? a : b; }
template <class N, class V, class Two>
inline N halved(const V& v, Two two) {  // eight and eight, then four and four, and so on
  typedef typename Vector<N, 8>::of Eight;
  typedef typename Vector<N, 4>::of Four;
  Eight eight = two(load<Eight>(&v), load<Eight>((N*)&v + 8));
  Four four = two(load<Four>(&eight), load<Four>((N*)&eight + 4));
  return two(two(four[0], four[2]), two(four[1], four[3]));
}
inline float total(F16 v) {
  return halved<float>(v, [](auto a, auto b) { return a + b; });
}
inline int32_t total(I16 v) {
  return halved<int32_t>(v, [](auto a, auto b) { return a + b; });
}
inline float largest(F16 v) {
  return halved<float>(v, [](auto a, auto b) { return a > b ? a : b; });
}
inline uint32_t largest(U16 v) {
  return halved<uint32_t>(v, [](auto a, auto b) { return a > b ? a : b; });
}
inline void put(float* to, F16 v, int64_t n) {  // the first n of them
  if (n >= LANES) store(to, v);
  else std::memcpy(to, &v, n * 4);
}

// Cephes' expf: 2^n times a polynomial of degree 6.
inline F16 exponential(F16 x) {
  x = least(most(x, all(-87.f)), all(88.f));
  F16 n = whole(x * 1.44269504f);
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
