// GELU and its slope, 16 lanes at a time: x Phi(x), and Phi(x) + x phi(x).
//
// Phi(-|x|) = e^(-x^2 / 2) times a polynomial (Abramowitz and Stegun 7.1.26; Phi to 1e-7): one exponential
// serves both.
#pragma once

#include <immintrin.h>

namespace ssql {

struct Gelu {
    __m512 value, slope;
};

// c0 + x (c1 + x (c2 ...)).
template <class... More>
inline __m512 polynomial(__m512 x, float first, More... more) {
    if constexpr (sizeof...(more) == 0)
        return _mm512_set1_ps(first);
    else
        return _mm512_fmadd_ps(x, polynomial(x, more...), _mm512_set1_ps(first));
}

// e^y for y <= 0; below -87 as there, where float32 ends.
inline __m512 exponential(__m512 y) {
    y = _mm512_max_ps(_mm512_set1_ps(-87.0f), y);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(y, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    // ln 2 in two parts, so that the rest is exact.
    __m512 rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), y);
    rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), rest);
    const __m512 power = polynomial(rest, 1.0f, 1.0f, 0.5f, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720);
    return _mm512_scalef_ps(power, n);
}

inline Gelu gelu(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 e = exponential(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f)));
    // 0.3275911 / sqrt(2)
    const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.231641888f), one));
    // Half of the coefficients of erf.
    const __m512 sum =
        polynomial(t, 0.127414796f, -0.142248368f, 0.7107068705f, -0.7265760135f, 0.5307027145f);
    const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(t, sum), e);
    const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
    const __m512 below = _mm512_mask_sub_ps(tail, above, one, tail);
    const __m512 density = _mm512_mul_ps(e, _mm512_set1_ps(0.398942280f));
    return {_mm512_mul_ps(x, below), _mm512_fmadd_ps(x, density, below)};
}

}  // namespace ssql
