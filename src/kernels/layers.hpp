// The layers of perceptrons as matrices in panels: how weights are packed, and activations kept.
//
// The first and the last layer are float32; those between multiply pairs of bfloat16 where `half` is set. A matrix
// (batch, n) of pairs is kept twice, paired along n for a W and g W^T, along the batch for a^T g: as much memory as in
// float32. Widths and batch are filled up with zeros, which add nothing.
#pragma once

#include "product.hpp"

namespace ssql {

// One perceptron's layer.
struct Layer {
    Index n_in, n_out, batch;    // as they are
    Index in, out, rows;         // filled up
    bool half;                   // pairs of bfloat16
    const float *weight, *bias;  // (n_in, n_out), (n_out,)

    // Elements of one row of a or g, and of W by its rows: how deep the products are.
    Index depth_in() const { return half ? in / 2 : n_in; }
    Index depth_out() const { return half ? out / 2 : n_out; }
    Index depth_batch() const { return half ? rows / 2 : rows; }
};

// Panels of W: (n_in, n_out), pairs along n_in; those of the columns given, which begin at a multiple of 16.
inline void pack(const Layer& l, Span columns, float* to) {
    const auto row = [&](Index k, Index c) {
        const __mmask16 mask = k < l.n_in ? lanes_below(l.n_out - c) : 0;
        return _mm512_maskz_loadu_ps(mask, l.weight + k * l.n_out + c);
    };
    to += columns.first * l.depth_in();
    for (Index c = columns.first; c < columns.end; c += LANES)
        for (Index k = 0; k < l.depth_in(); k++, to += LANES)
            if (l.half)
                _mm512_store_si512(to, paired(row(2 * k, c), row(2 * k + 1, c)));
            else
                _mm512_store_ps(to, row(k, c));
}

// Panels of W^T: (n_out, n_in), pairs along n_out; those of the columns of W^T given.
inline void pack_transposed(const Layer& l, Span columns, float* to) {
    const Index depth = l.depth_out();
    for (Index n = columns.first; n < columns.end; n += LANES)
        for (Index first = 0; first < depth; first += LANES) {
            __m512i block[LANES];
            for (Index i = 0; i < LANES; i++) {
                const bool there = n + i < l.n_in;
                const auto part = [&](Index c) {
                    const __mmask16 mask = there ? lanes_below(l.n_out - c) : 0;
                    return _mm512_maskz_loadu_ps(mask, l.weight + (n + i) * l.n_out + c);
                };
                block[i] = l.half ? rounded(part(2 * first), part(2 * first + LANES)) : (__m512i)part(first);
            }
            transpose(block);
            for (Index i = 0; i < LANES && first + i < depth; i++)
                _mm512_store_si512(to + n * depth + (first + i) * LANES, block[i]);
        }
}

// Panels of a row-major matrix (n_rows, n) of float32, filled up with zeros to `rows`.
inline void pack_rows(const float* from, Index n_rows, Index n, Index rows, float* to) {
    for (Index c = 0; c < n; c += LANES)
        for (Index r = 0; r < rows; r++, to += LANES)
            _mm512_store_ps(to, _mm512_maskz_loadu_ps(r < n_rows ? lanes_below(n - c) : 0, from + r * n + c));
}

// The sum of several registers; they are kept apart so that one addition need not wait for another.
inline __m512 added(const __m512 (&sum)[TILE]) {
    const __m512 low = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
    const __m512 high = _mm512_add_ps(_mm512_add_ps(sum[4], sum[5]), _mm512_add_ps(sum[6], sum[7]));
    return _mm512_add_ps(low, high);
}

// The tile back in row-major order: rows r .. of a matrix (n_rows, n).
template <int WIDTH>
void put_rows(float* to, Index n_rows, Index n, Index r, Index c, const __m512 (&sum)[TILE][WIDTH]) {
    for (Index i = 0; i < TILE && r + i < n_rows; i++)
        for (int j = 0; j < WIDTH; j++)
            store_below(to + (r + i) * n + c + j * LANES, n - c - j * LANES, sum[i][j]);
}

// Keep a tile of a matrix (batch, width) in the form that the products of layer `l` read.
template <int WIDTH>
void keep(const Layer& l, Index width, float* to, Index r, Index c, const __m512 (&sum)[TILE][WIDTH]) {
    if (!l.half) {
        for (int i = 0; i < TILE; i++)
            for (int j = 0; j < WIDTH; j++) _mm512_store_ps(to + (c + j * LANES) * l.rows + (r + i) * LANES, sum[i][j]);
        return;
    }
    if constexpr (WIDTH == 2) {
        float* by_batch = to + width / 2 * l.rows;
        for (int i = 0; i < TILE; i++)
            _mm512_store_si512(to + c / 2 * l.rows + (r + i) * LANES, rounded(sum[i][0], sum[i][1]));
        for (int i = 0; i < TILE; i += 2)
            for (int j = 0; j < WIDTH; j++)
                _mm512_store_si512(by_batch + (c + j * LANES) * (l.rows / 2) + (r + i) / 2 * LANES,
                                   paired(sum[i][j], sum[i + 1][j]));
    }
}

// Where in a tile the activations that `keep` kept are positive.
template <int WIDTH>
__mmask16 positive(const Layer& l, const float* kept, Index r, Index c, int i, int j) {
    if (l.half) {
        // Of a bfloat16 that is not negative, and an int16, the same are positive.
        const __m512i row = _mm512_load_si512(kept + c / 2 * l.rows + (r + i) * LANES);
        return static_cast<__mmask16>(_mm512_cmpgt_epi16_mask(row, _mm512_setzero_si512()) >> (j * LANES));
    }
    const __m512 row = _mm512_load_ps(kept + (c + j * LANES) * l.rows + (r + i) * LANES);
    return _mm512_cmp_ps_mask(row, _mm512_setzero_ps(), _CMP_GT_OQ);
}

// Slopes of an activation, float32, in panels: a tile's place.
inline float* slope_at(const Layer& l, float* slopes, Index r, Index c, int i, int j) {
    return slopes + (c + j * LANES) * l.rows + (r + i) * LANES;
}

template <bool TRANSPOSED, class Put>
void layer_product(const Layer& l, const float* a, Index a_rows, const float* b, Span rows, Index depth, Span columns,
                   Put put) {
    if (l.half)
        product<Pairs, TRANSPOSED>(a, a_rows, b, rows, depth, columns, put);
    else
        product<Singles, TRANSPOSED>(a, a_rows, b, rows, depth, columns, put);
}

// A single column, for which `product` would fill up 15 others: out (batch, 1) = a W + bias, rows of it.
inline void single_forward(const Layer& l, const float* a, Span rows, float* out) {
    for (Index r = rows.first; r < rows.end; r += TILE) {
        __m512 sum[TILE] = {};
        for (Index k = 0; k < l.n_in; k += LANES) {
            const __m512 weight = _mm512_maskz_loadu_ps(lanes_below(l.n_in - k), l.weight + k);
            for (int i = 0; i < TILE; i++)
                sum[i] = _mm512_fmadd_ps(_mm512_load_ps(a + k * l.rows + (r + i) * LANES), weight, sum[i]);
        }
        for (Index i = 0; i < TILE && r + i < l.batch; i++) out[r + i] = _mm512_reduce_add_ps(sum[i]) + *l.bias;
    }
}

// The same for dW (n_in, 1) = a^T g.
inline void single_gradient(const Layer& l, const float* a, const float* g, float* to) {
    for (Index k = 0; k < l.n_in; k += LANES) {
        __m512 sum[TILE] = {};
        for (Index r = 0; r < l.rows; r += TILE)
            for (int i = 0; i < TILE; i++) {
                const __m512 row = _mm512_load_ps(a + k * l.rows + (r + i) * LANES);
                sum[i] = _mm512_fmadd_ps(row, _mm512_set1_ps(g[(r + i) * LANES]), sum[i]);
            }
        store_below(to + k, l.n_in - k, added(sum));
    }
}

// Sums over the batch of a matrix that `keep` kept, those of the columns given, to (n,).
inline void sum_batch(const Layer& l, const float* kept, Index width, Span columns, Index n, float* to) {
    const Index depth = l.depth_batch();
    const float* from = l.half ? kept + width / 2 * l.rows : kept;
    const __m512i one = l.half ? _mm512_set1_epi16(0x3F80) : _mm512_castps_si512(_mm512_set1_ps(1.0f));
    for (Index c = columns.first; c < columns.end; c += LANES) {
        __m512 sum[TILE] = {};
        for (Index k = 0; k < depth; k += TILE)
            for (int i = 0; i < TILE; i++) {
                const __m512i part = _mm512_load_si512(from + c * depth + (k + i) * LANES);
                sum[i] = l.half ? Pairs::add(sum[i], one, part) : Singles::add(sum[i], one, part);
            }
        store_below(to + c, n - c, added(sum));
    }
}

constexpr Index MOST_LAYERS = 16;

struct Shape {
    const Index* sizes;
    Index layers, members, batch;
    bool half, gelu;

    bool is_half(Index i) const { return half && i > 0 && i < layers - 1; }
    Index rows() const { return filled(batch, LANES); }
    Index width(Index i) const { return filled(sizes[i], i == 0 || i == layers ? LANES : 2 * LANES); }
    // Elements of one perceptron, up to layer `end`: activations kept for the gradients, weights and their transposes
    // packed.
    Index kept(Index end) const {
        Index sum = 0;
        for (Index i = 1; i < end; i++) sum += width(i) * rows();
        return sum;
    }
    // With the slopes of GELU, which lie after them in the same order; those of ReLU are seen in what is kept.
    Index all_kept() const { return gelu ? 2 * kept(layers) : kept(layers); }
    Index packed(Index end) const {
        Index sum = 0;
        for (Index i = 0; i < end; i++) sum += (is_half(i) ? width(i) / 2 : sizes[i]) * width(i + 1);
        return sum;
    }
    Index packed_transposed(Index end) const {
        Index sum = 0;
        for (Index i = 0; i < end; i++) sum += (is_half(i) ? width(i + 1) / 2 : sizes[i + 1]) * width(i);
        return sum;
    }
    Index widest() const {
        Index most = 0;
        for (Index i = 0; i <= layers; i++) most = width(i) > most ? width(i) : most;
        return most;
    }
    // Multiplications of a pass.
    Index products() const {
        Index sum = 0;
        for (Index i = 0; i < layers; i++) sum += sizes[i] * sizes[i + 1];
        return sum * members * batch;
    }
    // The layers of perceptron m; `flat` has the weights of layer after layer, then the biases, each of all members.
    void layers_of(Index m, const float* flat, Layer (&to)[MOST_LAYERS]) const {
        Index weight = 0, bias = 0;
        for (Index i = 0; i < layers; i++) bias += members * sizes[i] * sizes[i + 1];
        for (Index i = 0; i < layers; i++) {
            const Index n = sizes[i], o = sizes[i + 1];
            to[i] = {n, o, batch, width(i), width(i + 1), rows(), is_half(i),
                     flat + weight + m * n * o, flat + bias + m * o};
            weight += members * n * o;
            bias += members * o;
        }
    }
};

}  // namespace ssql
