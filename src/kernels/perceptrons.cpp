// Several multilayer perceptrons of one shape, ReLU or GELU between the layers: outputs, and gradients.
//
// Three products make a layer out = a W:
//     forward   out = a W        dW = a^T g        da = g W^T        (g: gradient of the loss for out)
// Every element of each is summed in one order, whoever works on it, so that the number of threads changes no bit.

#include <cstdlib>

#include "crew.hpp"
#include "gelu.hpp"
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

// Room for each member's work. One that is nobody else's is the working thread's own, which its caches hold.
class Rooms {
   public:
    Rooms(Index elements, Index members, Index parts)
        : elements_(elements), shared_(parts > 1 ? workspace(members * elements) : nullptr), in_parts_(parts > 1) {}

    // Null where memory is out.
    float* of(Index m) const {
        float* room = in_parts_ ? shared_ : workspace(elements_);
        if (!room) missed_.store(1);
        return room && in_parts_ ? room + m * elements_ : room;
    }
    int missed() const { return missed_.load(); }

   private:
    const Index elements_;
    float* const shared_;
    const bool in_parts_;
    mutable std::atomic<int> missed_{0};
};

// Rows of the outputs of a perceptron. x: panels of inputs; packed: every layer's weights; kept: room for activations;
// slopes: null, or room for GELU's.
template <bool GELU>
void forward_rows(const Shape& shape, const Layer* layers, Span rows, const float* x, const float* packed, float* kept,
                  float* slopes, float* out) {
    for (Index i = 0; i < shape.layers; i++) {
        const Layer& l = layers[i];
        const bool last = i == shape.layers - 1;
        if (last && l.n_out == 1) return single_forward(l, x, rows, out);
        layer_product<false>(l, x, l.rows, packed, rows, l.depth_in(), {0, l.out}, [&](Index r, Index c, auto& sum) {
            constexpr int width = sizeof(sum[0]) / sizeof(sum[0][0]);
            for (int n = 0; n < TILE; n++)
                for (int j = 0; j < width; j++) {
                    __m512& part = sum[n][j];
                    const Index column = c + j * LANES;
                    part = _mm512_add_ps(part, _mm512_maskz_loadu_ps(lanes_below(l.n_out - column), l.bias + column));
                    if (last) continue;
                    if constexpr (GELU) {
                        const Gelu found = gelu(part);
                        part = found.value;
                        if (slopes) _mm512_store_ps(slope_at(l, slopes, r, c, n, j), found.slope);
                    } else {
                        // In this order the maximum of NaN is NaN.
                        part = _mm512_max_ps(_mm512_setzero_ps(), part);
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
        if (slopes) slopes += l.out * l.rows;
    }
}

// The part'th of `parts` pieces of what layer i's g says: gradients for its weights and biases, where there is a `to`,
// and rows of the gradient for what enters it, before the activation, to `below` (panels), or to_x for the first layer.
// a: what entered; slopes: where GELU made it, else null; packed: transposed weights.
void backward_layer(const Layer* layers, Index i, const Layer* to, Index part, Index parts, const float* a,
                    float* slopes, const float* packed, const float* g, float* below, float* to_x) {
    const Layer& l = layers[i];
    if (to) {
        float *weight = const_cast<float*>(to[i].weight), *bias = const_cast<float*>(to[i].bias);
        const Index depth = l.depth_batch();
        const Span columns = piece(l.out, 2 * LANES, part, parts);
        // Paired along the batch these matrices are in the second half.
        const Index skip_a = l.half ? l.in / 2 * l.rows : 0, skip_g = l.half ? l.out / 2 * l.rows : 0;
        if (l.n_out > 1 || l.half)
            layer_product<true>(l, a + skip_a, depth, g + skip_g, {0, filled(l.n_in, TILE)}, depth, columns,
                                [&](Index r, Index c, auto& sum) { put_rows(weight, l.n_in, l.n_out, r, c, sum); });
        else if (columns.first < columns.end)
            single_gradient(l, a, g, weight);
        sum_batch(l, g, l.out, columns, l.n_out, bias);
    }
    const Span rows = piece(l.rows, LANES, part, parts);
    if (i > 0)
        layer_product<false>(l, g, l.rows, packed, rows, l.depth_out(), {0, l.in}, [&](Index r, Index c, auto& sum) {
            constexpr int width = sizeof(sum[0]) / sizeof(sum[0][0]);
            for (int n = 0; n < TILE; n++)
                for (int j = 0; j < width; j++)
                    sum[n][j] =
                        slopes ? _mm512_mul_ps(_mm512_load_ps(slope_at(l, slopes, r, c, n, j)), sum[n][j])
                               : _mm512_maskz_mov_ps(positive<width>(l, a, r, c, n, j), sum[n][j]);
            keep(layers[i - 1], l.in, below, r, c, sum);
        });
    else if (to_x)
        layer_product<false>(l, g, l.rows, packed, rows, l.depth_out(), {0, l.in},
                             [&](Index r, Index c, auto& sum) { put_rows(to_x, l.batch, l.n_in, r, c, sum); });
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
int ssql_interface() { return 2; }

// Elements of `kept` for all members.
Index ssql_kept(const Index* sizes, Index layers, Index members, Index batch, int gelu) {
    return members * Shape{sizes, layers, members, batch, false, gelu != 0}.all_kept();
}

// out (members, batch, n_out) of x (batch, n_in), or (members, batch, n_in) unless `shared`, on up to so many threads.
// kept: null, or 64-byte aligned room for ssql_kept elements, for ssql_backward. Returns 0, or 1: out of memory.
int ssql_forward(const Index* sizes, Index layers, Index members, Index batch, Index threads, int half, int gelu,
                 int shared, const float* flat, const float* x, float* out, float* kept) {
    const Shape shape{sizes, layers, members, batch, half != 0, gelu != 0};
    const Index n_in = sizes[0], rows = shape.rows(), inputs = shape.width(0) * rows, parts = pieces(shape, threads);
    const Index packed = shape.packed(layers), own = inputs + packed + (kept ? 0 : shape.kept(layers));
    const Rooms rooms(own, members, parts);
    const auto rows_of = gelu ? forward_rows<true> : forward_rows<false>;
    const auto work = [&](Index phase, Index m, Index part) {
        float* room = rooms.of(m);
        if (!room) return;
        Layer list[MOST_LAYERS];
        shape.layers_of(m, flat, list);
        if (phase == 1)
            return rows_of(shape, list, piece(rows, LANES, part, parts), room, room + inputs,
                           kept ? kept + m * shape.all_kept() : room + inputs + packed,
                           kept && gelu ? kept + m * shape.all_kept() + shape.kept(layers) : nullptr,
                           out + m * batch * sizes[layers]);
        if (part == 0) pack_rows(x + (shared ? 0 : m * batch * n_in), batch, n_in, rows, room);
        for (Index i = 0; i < layers; i++)
            pack(list[i], piece(list[i].out, LANES, part, parts), room + inputs + shape.packed(i));
    };
    Crew::run_phases(2, members, parts, threads, work);
    return rooms.missed();
}

// Gradients of a loss whose gradient for `out` is `gradient`: to_flat (as flat) and to_x (members, batch, n_in), each
// member's own; either may be null. The rest is as for ssql_forward.
int ssql_backward(const Index* sizes, Index layers, Index members, Index batch, Index threads, int half, int gelu,
                  int shared, const float* flat, const float* x, float* kept, const float* gradient, float* to_flat,
                  float* to_x) {
    const Shape shape{sizes, layers, members, batch, half != 0, gelu != 0};
    const Index n_in = sizes[0], n_out = sizes[layers], rows = shape.rows(), parts = pieces(shape, threads);
    const Index inputs = shape.width(0) * rows, packed = shape.packed_transposed(layers), g = shape.widest() * rows;
    const Rooms rooms(inputs + packed + 2 * g, members, parts);
    const auto work = [&](Index phase, Index m, Index part) {
        float* room = rooms.of(m);
        if (!room) return;
        float *weights = room + inputs, *gradients[] = {weights + packed, weights + packed + g};
        Layer list[MOST_LAYERS], to[MOST_LAYERS];
        shape.layers_of(m, flat, list);
        if (phase > 0) {
            const Index i = layers - phase;
            if (to_flat) shape.layers_of(m, to_flat, to);
            float* own = kept + m * shape.all_kept() + shape.kept(i);
            float* slopes = gelu && i ? own + shape.kept(layers) : nullptr;
            return backward_layer(list, i, to_flat ? to : nullptr, part, parts, i ? own : room, slopes,
                                  weights + shape.packed_transposed(i),
                                  gradients[i % 2], gradients[1 - i % 2], to_x ? to_x + m * batch * n_in : nullptr);
        }
        if (part == 0) pack_rows(gradient + m * batch * n_out, batch, n_out, rows, gradients[(layers - 1) % 2]);
        if (part == 0 && to_flat) pack_rows(x + (shared ? 0 : m * batch * n_in), batch, n_in, rows, room);
        for (Index i = to_x ? 0 : 1; i < layers; i++)
            pack_transposed(list[i], piece(list[i].in, LANES, part, parts), weights + shape.packed_transposed(i));
    };
    Crew::run_phases(1 + layers, members, parts, threads, work);
    return rooms.missed();
}

}  // extern "C"
