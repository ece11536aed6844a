// Several multilayer perceptrons of one shape, ReLU between the layers: outputs, and gradients.
//
// Three products make a layer out = a W:
//     forward   out = a W        dW = a^T g        da = g W^T        (g: gradient of the loss for out)
// Every element of each is summed in one order, whoever works on it, so that the number of threads changes no bit.

#include <cstdlib>

#include "crew.hpp"
#include "layers.hpp"

namespace {

using namespace ssql;

// Memory that a call works in; kept for the thread's next one.
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

// Rows of the outputs of a perceptron. x: panels of inputs; packed: every layer's weights; kept: room for activations.
void forward_rows(const Shape& shape, const Layer* layers, Span rows, const float* x, const float* packed, float* kept,
                  float* out) {
    for (Index i = 0; i < shape.layers; i++) {
        const Layer& l = layers[i];
        const bool last = i == shape.layers - 1;
        if (last && l.n_out == 1) return single_forward(l, x, rows, out);
        layer_product<false>(l, x, l.rows, packed, rows, l.depth_in(), {0, l.out}, [&](Index r, Index c, auto& sum) {
            for (auto& row : sum) {
                Index column = c;
                for (auto& part : row) {
                    part = _mm512_add_ps(part, _mm512_maskz_loadu_ps(lanes_below(l.n_out - column), l.bias + column));
                    // In this order the maximum of NaN is NaN.
                    if (!last) part = _mm512_max_ps(_mm512_setzero_ps(), part);
                    column += LANES;
                }
            }
            if (last)
                put_rows(out, l.batch, l.n_out, r, c, sum);
            else
                keep(layers[i + 1], l.out, kept, r, c, sum);
        });
        packed += l.depth_in() * l.out;
        x = kept;
        kept += l.out * l.rows;
    }
}

// Rows of every layer's g, the last one's given, and of the gradient for x where it is wanted.
// found: layer after layer, panels; packed: every layer's transposed weights.
void backward_rows(const Shape& shape, const Layer* layers, Span rows, const float* kept, const float* packed,
                   float* found, float* to_x) {
    const float *after = kept + shape.kept(), *weights = packed + shape.packed_transposed();
    float* g = found + shape.gradients() - shape.width(shape.layers) * shape.rows();
    for (Index i = shape.layers - 1; i >= (to_x ? 0 : 1); i--) {
        const Layer& l = layers[i];
        weights -= l.depth_out() * l.in;
        if (i == 0)
            return layer_product<false>(l, g, l.rows, weights, rows, l.depth_out(), {0, l.in},
                                        [&](auto r, auto c, auto& sum) { put_rows(to_x, l.batch, l.n_in, r, c, sum); });
        const float* a = after -= l.in * l.rows;
        float* below = g - l.in * l.rows;
        layer_product<false>(l, g, l.rows, weights, rows, l.depth_out(), {0, l.in}, [&](Index r, Index c, auto& sum) {
            constexpr int width = sizeof(sum[0]) / sizeof(sum[0][0]);
            for (int n = 0; n < TILE; n++)
                for (int j = 0; j < width; j++)
                    sum[n][j] = _mm512_maskz_mov_ps(positive<width>(l, a, r, c, n, j), sum[n][j]);
            keep(layers[i - 1], l.in, below, r, c, sum);
        });
        g = below;
    }
}

// The part'th of `parts` pieces of the gradients for the weights and biases of every layer, to `to`.
void backward_weights(const Shape& shape, const Layer* layers, const Layer* to, Index part, Index parts, const float* x,
                      const float* kept, const float* g) {
    const float* a = x;
    for (Index i = 0; i < shape.layers; i++) {
        const Layer& l = layers[i];
        const Index depth = l.depth_batch();
        const Span columns = piece(l.out, 2 * LANES, part, parts);
        float* found = const_cast<float*>(to[i].weight);
        // Paired along the batch these matrices are in the second half.
        const Index skip_a = l.half ? l.in / 2 * l.rows : 0, skip_g = l.half ? l.out / 2 * l.rows : 0;
        if (l.n_out > 1 || l.half)
            layer_product<true>(l, a + skip_a, depth, g + skip_g, {0, filled(l.n_in, TILE)}, depth, columns,
                                [&](Index r, Index c, auto& sum) { put_rows(found, l.n_in, l.n_out, r, c, sum); });
        else if (columns.first < columns.end)
            single_gradient(l, a, g, found);
        sum_batch(l, g, l.out, columns, l.n_out, const_cast<float*>(to[i].bias));
        a = i ? a + l.in * l.rows : kept;
        g += l.out * l.rows;
    }
}

// Every member in pieces, as many as the threads that would have none otherwise.
Index pieces(const Shape& shape, Index threads) {
    constexpr Index LEAST = 1 << 23;  // products worth a helper's time
    if (threads < 2 || shape.products() < LEAST) return 1;
    return (threads + shape.members - 1) / shape.members;
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

// out (members, batch, n_out) of x (batch, n_in), or (members, batch, n_in) unless `shared`, on up to so many threads.
// kept: null, or 64-byte aligned room for ssql_kept elements, for ssql_backward. Returns 0, or 1: out of memory.
int ssql_forward(const Index* sizes, Index layers, Index members, Index batch, Index threads, int half, int shared,
                 const float* flat, const float* x, float* out, float* kept) {
    const Shape shape{sizes, layers, members, batch, half != 0};
    const Index n_in = sizes[0], rows = shape.rows(), inputs = shape.width(0) * rows, parts = pieces(shape, threads);
    const Index own = inputs + shape.packed() + (kept ? 0 : shape.kept());
    float* room = workspace(members * own);
    if (!room) return 1;
    const auto input = [&](Index m) { return room + (shared ? 0 : m * own); };
    const auto prepare = [&](Index m, Index part) {
        Layer found[MOST_LAYERS];
        shape.layers_of(m, flat, found);
        if (!shared && part == 0) pack_rows(x + m * batch * n_in, batch, n_in, rows, input(m));
        float* packed = room + m * own + inputs;
        for (const Layer* l = found; l < found + layers; packed += l->depth_in() * l->out, l++)
            pack(*l, piece(l->out, LANES, part, parts), packed);
    };
    const auto work = [&](Index m, Index part) {
        Layer found[MOST_LAYERS];
        shape.layers_of(m, flat, found);
        float *packed = room + m * own + inputs, *own_kept = kept ? kept + m * shape.kept() : packed + shape.packed();
        forward_rows(shape, found, piece(rows, LANES, part, parts), input(m), packed, own_kept,
                     out + m * batch * sizes[layers]);
    };
    if (shared) pack_rows(x, batch, n_in, rows, input(0));
    Crew::run_phases(members, parts, threads, prepare, work);
    return 0;
}

// Gradients of a loss whose gradient for `out` is `gradient`: to_flat (as flat) and to_x (members, batch, n_in), each
// member's own; either may be null. The rest is as for ssql_forward.
int ssql_backward(const Index* sizes, Index layers, Index members, Index batch, Index threads, int half, int shared,
                  const float* flat, const float* x, const float* kept, const float* gradient, float* to_flat,
                  float* to_x) {
    const Shape shape{sizes, layers, members, batch, half != 0};
    const Index n_in = sizes[0], n_out = sizes[layers], rows = shape.rows(), inputs = shape.width(0) * rows;
    const Index parts = pieces(shape, threads), own = inputs + shape.packed_transposed() + shape.gradients();
    float* room = workspace(members * own);
    if (!room) return 1;
    const auto input = [&](Index m) { return room + (shared ? 0 : m * own); };
    const auto packed = [&](Index m) { return room + m * own + inputs; };
    const auto found = [&](Index m) { return packed(m) + shape.packed_transposed(); };
    const auto prepare = [&](Index m, Index part) {
        Layer list[MOST_LAYERS];
        shape.layers_of(m, flat, list);
        float* to = packed(m);
        for (const Layer* l = list; l < list + layers; to += l->depth_out() * l->in, l++)
            if (l > list || to_x) pack_transposed(*l, piece(l->in, LANES, part, parts), to);
        if (part) return;
        const Index last = shape.width(layers) * rows;
        pack_rows(gradient + m * batch * n_out, batch, n_out, rows, found(m) + shape.gradients() - last);
        if (to_flat && !shared) pack_rows(x + m * batch * n_in, batch, n_in, rows, input(m));
    };
    const auto propagate = [&](Index m, Index part) {
        Layer list[MOST_LAYERS];
        shape.layers_of(m, flat, list);
        backward_rows(shape, list, piece(rows, LANES, part, parts), kept + m * shape.kept(), packed(m), found(m),
                      to_x ? to_x + m * batch * n_in : nullptr);
    };
    const auto collect = [&](Index m, Index part) {
        if (!to_flat) return;
        Layer list[MOST_LAYERS], to[MOST_LAYERS];
        shape.layers_of(m, flat, list);
        shape.layers_of(m, to_flat, to);
        backward_weights(shape, list, to, part, parts, input(m), kept + m * shape.kept(), found(m));
    };
    if (to_flat && shared) pack_rows(x, batch, n_in, rows, input(0));
    Crew::run_phases(members, parts, threads, prepare, propagate, collect);
    return 0;
}

}  // extern "C"
