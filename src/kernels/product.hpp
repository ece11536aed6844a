// Products of matrices in panels, for processors with AVX-512 and its bfloat16 products.
//
// A matrix lies in PANELS of 16 columns of 32-bit elements: element (r, c) at (c / 16 * rows + r) * 16 + c % 16.
// An element is one float32 (Singles), or two bfloat16, multiplied and added in float32 by one instruction (Pairs).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace ssql {

using Index = std::int64_t;

constexpr Index LANES = 16;  // 32-bit elements of a register
constexpr Index TILE = 8;    // rows that `product` works on at a time

inline Index filled(Index n, Index multiple) { return (n + multiple - 1) / multiple * multiple; }

inline __mmask16 lanes_below(Index n) {
    return n >= LANES ? 0xFFFF : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1);
}

// The first n lanes; stores under a mask are slow on some processors.
inline void store_below(float* to, Index n, __m512 value) {
    if (n >= LANES) return _mm512_storeu_ps(to, value);
    alignas(64) float lanes[LANES];
    _mm512_store_ps(lanes, value);
    for (Index i = 0; i < n; i++) to[i] = lanes[i];
}

struct Singles {
    static __m512 add(__m512 sum, __m512i a, __m512i b) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
    }
};

struct Pairs {
    static __m512 add(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
};

// 32 bfloat16 in the order of two registers of float32.
inline __m512i rounded(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// Pairs (upper[i], lower[i]) of two rows of float32.
inline __m512i paired(__m512 upper, __m512 lower) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, rounded(upper, lower));
}

// One tile of `product`: sum[i][j] = columns c + 16 j .. of row r + i.
template <class Number, bool TRANSPOSED, int WIDTH>
inline __attribute__((always_inline)) void tile(const float* a, Index a_rows, const float* b, Index depth, Index r,
                                                __m512 (&sum)[TILE][WIDTH]) {
    for (auto& row : sum)
        for (auto& part : row) part = _mm512_setzero_ps();
    const auto step = [&](const float* from, Index stride, const float* with) __attribute__((always_inline)) {
        __m512i factor[WIDTH];
        for (int j = 0; j < WIDTH; j++) factor[j] = _mm512_load_si512(with + j * depth * LANES);
        for (int i = 0; i < TILE; i++) {
            const __m512i element = _mm512_castps_si512(_mm512_set1_ps(from[i * stride]));
            for (int j = 0; j < WIDTH; j++) sum[i][j] = Number::add(sum[i][j], element, factor[j]);
        }
    };
    if constexpr (TRANSPOSED) {
        const float* from = a + r / LANES * a_rows * LANES + r % LANES;
        for (Index k = 0; k < depth; k++) step(from + k * LANES, 1, b + k * LANES);
    } else {
        for (Index panel = 0; panel < depth; panel += LANES) {
            const float* from = a + (panel * a_rows + r * LANES);
            const Index end = depth - panel < LANES ? depth - panel : LANES;
            for (Index k = 0; k < end; k++) step(from + k, LANES, b + (panel + k) * LANES);
        }
    }
}

// From `first` to before `end`.
struct Span {
    Index first, end;
};

// The part'th of `parts` pieces of [0, total), which begin at multiples of `step`.
inline Span piece(Index total, Index step, Index part, Index parts) {
    const Index steps = (total + step - 1) / step;
    const Index end = steps * (part + 1) / parts * step;
    return {steps * part / parts * step, end < total ? end : total};
}

// Rows and columns of a b, or of a^T b, tile by tile: put(r, c, sum) takes 8 rows from r, 16 WIDTH columns from c.
//   a: panels of a_rows rows: (rows, depth), or (depth, rows) if TRANSPOSED; b: panels (depth, columns).
//   rows begin at multiples of 8, columns of 32.
template <class Number, bool TRANSPOSED, class Put>
void product(const float* a, Index a_rows, const float* b, Span rows, Index depth, Span columns, Put put) {
    for (Index c = columns.first; c < columns.end; c += 2 * LANES) {
        const float* with = b + c * depth;
        for (Index r = rows.first; r < rows.end; r += TILE) {
            if (columns.end - c > LANES) {
                __m512 sum[TILE][2];
                tile<Number, TRANSPOSED>(a, a_rows, with, depth, r, sum);
                put(r, c, sum);
            } else {
                __m512 sum[TILE][1];
                tile<Number, TRANSPOSED>(a, a_rows, with, depth, r, sum);
                put(r, c, sum);
            }
        }
    }
}

// Transpose 16 x 16 elements in place.
inline void transpose(__m512i (&rows)[LANES]) {
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int size = 1; size < LANES; size *= 2) {
        // Swap the off-diagonal blocks of this size.
        const __m512i by = _mm512_set1_epi32(size), sixteen = _mm512_set1_epi32(LANES);
        const __mmask16 odd = _mm512_test_epi32_mask(lane, by);
        const __m512i low = _mm512_mask_add_epi32(lane, odd, _mm512_sub_epi32(lane, by), sixteen);
        const __m512i high = _mm512_mask_add_epi32(_mm512_add_epi32(lane, by), odd, lane, sixteen);
        for (int i = 0; i < LANES; i++) {
            if (i & size) continue;
            const __m512i upper = rows[i], lower = rows[i + size];
            rows[i] = _mm512_permutex2var_epi32(upper, low, lower);
            rows[i + size] = _mm512_permutex2var_epi32(upper, high, lower);
        }
    }
}

}  // namespace ssql
