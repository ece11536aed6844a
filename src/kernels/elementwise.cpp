// Draws of the squashed Gaussian policy with their log-probability, moving averages, Adam.

#include <cmath>
#include <initializer_list>

#include "product.hpp"

namespace {

using namespace ssql;

// e^x, relative error 2e-7: 2^n e^r with |r| <= log(2) / 2, and a polynomial for e^r.
__m512 exponential(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    // log(2) in two parts, the first of few bits, so that n times it is exact.
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 sum = _mm512_set1_ps(1.0f / 5040.0f);
    for (const float c : {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f})
        sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(c));
    return _mm512_scalef_ps(sum, n);
}

// log(1 + y) for 0 <= y <= 1: 2 artanh(s), s = y / (2 + y) <= 1/3, as a series.
__m512 log_one_plus(__m512 y) {
    const __m512 s = _mm512_div_ps(y, _mm512_add_ps(y, _mm512_set1_ps(2.0f))), square = _mm512_mul_ps(s, s);
    __m512 sum = _mm512_set1_ps(2.0f / 15.0f);
    for (const float c : {2.0f / 13.0f, 2.0f / 11.0f, 2.0f / 9.0f, 2.0f / 7.0f, 2.0f / 5.0f, 2.0f / 3.0f, 2.0f})
        sum = _mm512_fmadd_ps(sum, square, _mm512_set1_ps(c));
    return _mm512_mul_ps(sum, s);
}

}  // namespace

extern "C" {

// Actions tanh(u) (batch, n), u = mean + exp(log_std) z, and their log-probability (batch,), as policy.py has them.
// raw: (batch, 2 n), mean and log_std before it is clipped to [low, high]; z: (batch, n).
void ssql_draw(Index batch, Index n, const float* raw, const float* z, float low, float high, float* action,
               float* log_probability) {
    const __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f);
    const __m512 log_two = _mm512_set1_ps(0.69314718f), log_root = _mm512_set1_ps(0.91893853f);  // log(2 pi) / 2
    for (Index row = 0; row < batch; row++, raw += 2 * n, z += n, action += n) {
        float sum = 0.0f;
        for (Index c = 0; c < n; c += LANES) {
            const __mmask16 mask = lanes_below(n - c);
            const __m512 mean = _mm512_maskz_loadu_ps(mask, raw + c), drawn = _mm512_maskz_loadu_ps(mask, z + c);
            __m512 log_std = _mm512_maskz_loadu_ps(mask, raw + n + c);
            log_std = _mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), log_std));
            const __m512 u = _mm512_fmadd_ps(exponential(log_std), drawn, mean);
            // With y = e^(-2 |u|): tanh |u| = (1 - y) / (1 + y), log(1 - tanh(u)^2) = 2 (log 2 - |u| - log(1 + y)).
            const __m512 size = _mm512_abs_ps(u), y = exponential(_mm512_mul_ps(_mm512_set1_ps(-2.0f), size));
            const __m512 tanh = _mm512_div_ps(_mm512_sub_ps(one, y), _mm512_add_ps(one, y));
            const __m512 sign = _mm512_and_ps(u, _mm512_set1_ps(-0.0f));
            store_below(action + c, n - c, _mm512_or_ps(tanh, sign));
            const __m512 slope = _mm512_mul_ps(two, _mm512_sub_ps(_mm512_sub_ps(log_two, size), log_one_plus(y)));
            __m512 log_density = _mm512_mul_ps(_mm512_mul_ps(drawn, drawn), _mm512_set1_ps(-0.5f));
            log_density = _mm512_sub_ps(_mm512_sub_ps(log_density, log_std), log_root);
            sum += _mm512_mask_reduce_add_ps(mask, _mm512_sub_ps(log_density, slope));
        }
        log_probability[row] = sum;
    }
}

// to_raw (batch, 2 n) from the gradients of a loss for actions (batch, n) and log-probabilities (batch,).
void ssql_draw_backward(Index batch, Index n, const float* raw, const float* z, float low, float high,
                        const float* action, const float* to_action, const float* to_log_probability, float* to_raw) {
    for (Index row = 0; row < batch; row++, raw += 2 * n, z += n, action += n, to_action += n, to_raw += 2 * n) {
        const float with = to_log_probability[row];
        for (Index c = 0; c < n; c += LANES) {
            const __mmask16 mask = lanes_below(n - c);
            const __m512 a = _mm512_maskz_loadu_ps(mask, action + c), weight = _mm512_set1_ps(with);
            const __m512 log_std = _mm512_maskz_loadu_ps(mask, raw + n + c);
            const __mmask16 inside = _mm512_cmp_ps_mask(log_std, _mm512_set1_ps(low), _CMP_GE_OQ) &
                                     _mm512_cmp_ps_mask(log_std, _mm512_set1_ps(high), _CMP_LE_OQ);
            // d tanh(u) / du = 1 - a^2, d log pi / du = 2 a.
            const __m512 slope = _mm512_fnmadd_ps(a, a, _mm512_set1_ps(1.0f));
            __m512 to_u = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, to_action + c), slope);
            to_u = _mm512_fmadd_ps(_mm512_mul_ps(weight, _mm512_set1_ps(2.0f)), a, to_u);
            store_below(to_raw + c, n - c, to_u);
            const __m512 noise = _mm512_mul_ps(exponential(log_std), _mm512_maskz_loadu_ps(mask, z + c));
            store_below(to_raw + n + c, n - c, _mm512_maskz_fmsub_ps(inside, to_u, noise, weight));
        }
    }
}

// target += tau (online - target).
void ssql_average(Index n, float* __restrict target, const float* __restrict online, float tau) {
    for (Index i = 0; i < n; i++) target[i] += tau * (online[i] - target[i]);
}

// One step of Adam (Kingma & Ba 2015, 1412.6980) on n parameters, p -= rate m^ / (sqrt(v^) + tiny).
void ssql_adam(Index n, float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v,
               double step, double rate, double beta1, double beta2, double tiny) {
    const float keep1 = static_cast<float>(beta1), keep2 = static_cast<float>(beta2);
    const float take1 = static_cast<float>(1.0 - beta1), take2 = static_cast<float>(1.0 - beta2);
    const float length = static_cast<float>(rate / (1.0 - std::pow(beta1, step)));
    const float root = static_cast<float>(std::sqrt(1.0 - std::pow(beta2, step))), least = static_cast<float>(tiny);
    for (Index i = 0; i < n; i++) {
        m[i] = keep1 * m[i] + take1 * g[i];
        v[i] = keep2 * v[i] + take2 * g[i] * g[i];
        p[i] -= length * m[i] / (std::sqrt(v[i]) / root + least);
    }
}

}  // extern "C"
