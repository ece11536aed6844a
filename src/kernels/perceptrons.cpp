// Several multilayer perceptrons of one shape, ReLU between the layers: outputs, and gradients.
//
// Three products make a layer out = a W:
//     forward   out = a W        dW = a^T g        da = g W^T        (g: gradient of the loss for out)
// The first and the last layer are float32; those between multiply pairs of bfloat16 where `half` is set. A matrix
// (batch, n) of pairs is kept twice, paired along n for a W and g W^T, along the batch for a^T g: as much memory as in
// float32. Widths and batch are filled up with zeros, which add nothing.

#include <cstdlib>

#include "crew.hpp"
#include "product.hpp"

namespace {

using namespace ssql;

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

// Panels of W: (n_in, n_out), pairs along n_in.
void pack(const Layer& l, float* to) {
    const auto row = [&](Index k, Index c) {
        const __mmask16 mask = k < l.n_in ? lanes_below(l.n_out - c) : 0;
        return _mm512_maskz_loadu_ps(mask, l.weight + k * l.n_out + c);
    };
    for (Index c = 0; c < l.out; c += LANES)
        for (Index k = 0; k < l.depth_in(); k++, to += LANES)
            if (l.half)
                _mm512_store_si512(to, paired(row(2 * k, c), row(2 * k + 1, c)));
            else
                _mm512_store_ps(to, row(k, c));
}

// Panels of W^T: (n_out, n_in), pairs along n_out.
void pack_transposed(const Layer& l, float* to) {
    const Index depth = l.depth_out();
    for (Index n = 0; n < l.in; n += LANES)
        for (Index first = 0; first < depth; first += LANES) {
            __m512i block[LANES];
            for (Index i = 0; i < LANES; i++) {
                const bool there = n + i < l.n_in;
                const auto part = [&](Index c) {
                    const __mmask16 mask = there ? lanes_below(l.n_out - c) : 0;
                    return _mm512_maskz_loadu_ps(mask, l.weight + (n + i) * l.n_out + c);
                };
                block[i] = l.half ? rounded(part(2 * first), part(2 * first + LANES)) : _mm512_castps_si512(part(first));
            }
            transpose(block);
            for (Index i = 0; i < LANES && first + i < depth; i++)
                _mm512_store_si512(to + n * depth + (first + i) * LANES, block[i]);
        }
}

// Panels of a row-major matrix (n_rows, n) of float32, filled up with zeros to `rows`.
void pack_rows(const float* from, Index n_rows, Index n, Index rows, float* to) {
    for (Index c = 0; c < n; c += LANES)
        for (Index r = 0; r < rows; r++, to += LANES)
            _mm512_store_ps(to, _mm512_maskz_loadu_ps(r < n_rows ? lanes_below(n - c) : 0, from + r * n + c));
}

// Sums over the rows of a row-major matrix (n_rows, n).
void sum_rows(const float* from, Index n_rows, Index n, float* to) {
    for (Index c = 0; c < n; c++) to[c] = 0.0f;
    for (Index r = 0; r < n_rows; r++)
        for (Index c = 0; c < n; c++) to[c] += from[r * n + c];
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

template <bool TRANSPOSED, class Put>
void layer_product(const Layer& l, const float* a, Index a_rows, const float* b, Index rows, Index depth, Index columns,
                   Put put) {
    if (l.half)
        product<Pairs, TRANSPOSED>(a, a_rows, b, rows, depth, columns, put);
    else
        product<Singles, TRANSPOSED>(a, a_rows, b, rows, depth, columns, put);
}

constexpr Index MOST_LAYERS = 16;

struct Shape {
    const Index* sizes;
    Index layers, members, batch;
    bool half;

    Index rows() const { return filled(batch, LANES); }
    Index width(Index i) const { return filled(sizes[i], i == 0 || i == layers ? LANES : 2 * LANES); }
    // Elements of the activations that one perceptron keeps for its gradients.
    Index kept() const {
        Index sum = 0;
        for (Index i = 1; i < layers; i++) sum += width(i) * rows();
        return sum;
    }
    Index widest() const {
        Index most = 0;
        for (Index i = 0; i <= layers; i++) most = width(i) > most ? width(i) : most;
        return most;
    }
    // The layers of perceptron m; `flat` has the weights of layer after layer, then the biases, each of all members.
    void layers_of(Index m, const float* flat, Layer (&to)[MOST_LAYERS]) const {
        Index weight = 0, bias = 0;
        for (Index i = 0; i < layers; i++) bias += members * sizes[i] * sizes[i + 1];
        for (Index i = 0; i < layers; i++) {
            const Index n = sizes[i], o = sizes[i + 1];
            to[i] = {n, o, batch, width(i), width(i + 1), rows(), half && i > 0 && i < layers - 1,
                     flat + weight + m * n * o, flat + bias + m * o};
            weight += members * n * o;
            bias += members * o;
        }
    }
};

// Memory that a call works in; kept for the next one.
float* workspace(Index elements) {
    static thread_local struct Buffer {
        float* data = nullptr;
        Index size = 0;
        ~Buffer() { std::free(data); }
    } buffer;
    if (buffer.size < elements) {
        std::free(buffer.data);
        buffer.data = static_cast<float*>(std::aligned_alloc(64, filled(elements, LANES) * sizeof(float)));
        buffer.size = buffer.data ? elements : 0;
    }
    return buffer.data;
}

void forward_one(const Shape& shape, const Layer* layers, const float* x, float* kept, float* packed, float* out) {
    for (Index i = 0; i < shape.layers; i++) {
        const Layer& l = layers[i];
        const bool last = i == shape.layers - 1;
        pack(l, packed);
        layer_product<false>(l, x, l.rows, packed, l.rows, l.depth_in(), l.out, [&](Index r, Index c, auto& sum) {
            for (auto& row : sum) {
                Index column = c;
                for (auto& part : row) {
                    part = _mm512_add_ps(part, _mm512_maskz_loadu_ps(lanes_below(l.n_out - column), l.bias + column));
                    // In this order the maximum of NaN is NaN.
                    if (!last) part = _mm512_max_ps(_mm512_setzero_ps(), part);
                    column += LANES;
                }
            }
            if (!last) return keep(layers[i + 1], l.out, kept, r, c, sum);
            for (Index n = r; n < r + TILE && n < l.batch; n++) {
                Index column = c;
                for (auto& part : sum[n - r]) {
                    store_below(out + n * l.n_out + column, l.n_out - column, part);
                    column += LANES;
                }
            }
        });
        x = kept;
        kept += l.out * l.rows;
    }
}

// g: gradient for the last layer's outputs, panels; both g and `below` have room for the widest layer.
void backward_one(const Shape& shape, const Layer* layers, const Layer* to, const float* x, const float* kept,
                  float* packed, float* g, float* below, float* to_x) {
    const float* after = kept + shape.kept();
    for (Index i = shape.layers - 1; i >= 0; i--) {
        const Layer& l = layers[i];
        const Index depth = l.depth_batch();
        const float* a = i ? after -= l.in * l.rows : x;
        if (to) {
            float* found = const_cast<float*>(to[i].weight);
            // Paired along the batch these matrices are in the second half.
            const Index skip_a = l.half ? l.in / 2 * l.rows : 0, skip_g = l.half ? l.out / 2 * l.rows : 0;
            layer_product<true>(l, a + skip_a, depth, g + skip_g, filled(l.n_in, TILE), depth, l.out,
                                [&](Index r, Index c, auto& sum) {
                for (Index n = r; n < r + TILE && n < l.n_in; n++) {
                    Index column = c;
                    for (auto& part : sum[n - r]) {
                        store_below(found + n * l.n_out + column, l.n_out - column, part);
                        column += LANES;
                    }
                }
            });
        }
        if (i == 0 && !to_x) return;
        pack_transposed(l, packed);
        if (i == 0) {
            layer_product<false>(l, g, l.rows, packed, l.rows, l.depth_out(), l.in, [&](Index r, Index c, auto& sum) {
                for (Index n = r; n < r + TILE && n < l.batch; n++) {
                    Index column = c;
                    for (auto& part : sum[n - r]) {
                        store_below(to_x + n * l.n_in + column, l.n_in - column, part);
                        column += LANES;
                    }
                }
            });
            return;
        }
        const Layer& before = layers[i - 1];
        float* to_bias = to ? const_cast<float*>(to[i - 1].bias) : nullptr;
        layer_product<false>(l, g, l.rows, packed, l.rows, l.depth_out(), l.in, [&](Index r, Index c, auto& sum) {
            constexpr int width = sizeof(sum[0]) / sizeof(sum[0][0]);
            for (int j = 0; j < width; j++) {
                __m512 total = _mm512_setzero_ps();
                for (int i = 0; i < TILE; i++) {
                    sum[i][j] = _mm512_maskz_mov_ps(positive<width>(l, a, r, c, i, j), sum[i][j]);
                    total = _mm512_add_ps(total, sum[i][j]);
                }
                if (to_bias) {
                    const __mmask16 mask = lanes_below(before.n_out - c - j * LANES);
                    float* place = to_bias + c + j * LANES;
                    if (r) total = _mm512_add_ps(total, _mm512_maskz_loadu_ps(mask, place));
                    store_below(place, before.n_out - c - j * LANES, total);
                }
            }
            keep(before, l.in, below, r, c, sum);
        });
        float* swapped = g;
        g = below;
        below = swapped;
    }
}

}  // namespace

extern "C" {

// 1 where this processor has the instructions.
int ssql_supported() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

// Moves with every change of what the functions take.
int ssql_interface() { return 1; }

// Elements of `kept` for all members.
Index ssql_kept(const Index* sizes, Index layers, Index members, Index batch) {
    return members * Shape{sizes, layers, members, batch, false}.kept();
}

// out (members, batch, n_out) of x (batch, n_in), or (members, batch, n_in) unless `shared`, on up to `threads` threads.
// kept: null, or 64-byte aligned room for ssql_kept elements, for ssql_backward. Returns 0, or 1: out of memory.
int ssql_forward(const Index* sizes, Index layers, Index members, Index batch, Index threads, int half, int shared,
                 const float* flat, const float* x, float* out, float* kept) {
    const Shape shape{sizes, layers, members, batch, half != 0};
    const Index widest = shape.widest(), inputs = shape.width(0) * shape.rows();
    std::atomic<int> failed{0};
    Crew::run(members, threads, [&](Index m) {
        float* room = workspace(inputs + widest * widest + (kept ? 0 : shape.kept()));
        if (!room) return failed.store(1);
        float* packed = room + inputs;
        Layer found[MOST_LAYERS];
        shape.layers_of(m, flat, found);
        pack_rows(x + (shared ? 0 : m * batch * sizes[0]), batch, sizes[0], shape.rows(), room);
        float* own = kept ? kept + m * shape.kept() : packed + widest * widest;
        forward_one(shape, found, room, own, packed, out + m * batch * sizes[layers]);
    });
    return failed;
}

// Gradients of a loss whose gradient for `out` is `gradient`: to_flat (as flat) and to_x (members, batch, n_in), each
// member's own; either may be null. The rest is as for ssql_forward.
int ssql_backward(const Index* sizes, Index layers, Index members, Index batch, Index threads, int half, int shared,
                  const float* flat, const float* x, const float* kept, const float* gradient, float* to_flat,
                  float* to_x) {
    const Shape shape{sizes, layers, members, batch, half != 0};
    const Index n_in = sizes[0], n_out = sizes[layers], rows = shape.rows(), widest = shape.widest();
    const Index inputs = shape.width(0) * rows;
    std::atomic<int> failed{0};
    Crew::run(members, threads, [&](Index m) {
        float* room = workspace(inputs + widest * widest + 2 * widest * rows);
        if (!room) return failed.store(1);
        float *packed = room + inputs, *g = packed + widest * widest, *below = g + widest * rows;
        Layer found[MOST_LAYERS], to[MOST_LAYERS];
        shape.layers_of(m, flat, found);
        const float* own = gradient + m * batch * n_out;
        if (to_flat) {
            shape.layers_of(m, to_flat, to);
            sum_rows(own, batch, n_out, const_cast<float*>(to[layers - 1].bias));
            pack_rows(x + (shared ? 0 : m * batch * n_in), batch, n_in, rows, room);
        }
        pack_rows(own, batch, n_out, rows, g);
        backward_one(shape, found, to_flat ? to : nullptr, room, kept + m * shape.kept(), packed, g, below,
                     to_x ? to_x + m * batch * n_in : nullptr);
    });
    return failed;
}

}  // extern "C"
