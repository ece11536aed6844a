"""Serves a bundle's safety critic: logits of Q_safe for many candidate actions at once.

onnxruntime scores candidates, with the observation's part of the first layer computed once for all; NumPy scores
proposals, which come alone. One thread: the tail of a decision is the scheduler's, and a second thread makes it worse.
No torch: a shield starts in a fraction of a second.
"""

from __future__ import annotations

import math

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, checker, helper, numpy_helper

from ssql_ros.bundle import Bundle, CriticNetwork, Layer


def logit(probability: float) -> float:
    """Return log(p / (1 - p)) for 0 < p < 1."""
    return math.log(probability) - math.log1p(-probability)


def sigmoid(logits: float) -> float:
    """Return 1 / (1 + exp(-x)); NaN stays NaN."""
    if logits >= 0:
        return 1.0 / (1.0 + math.exp(-logits))
    exponential = math.exp(logits)
    return exponential / (1.0 + exponential)


class SafetyCritic:
    """Q_safe(s, a) of one bundle, ready to score candidates.

    Attributes:
        bundle: what is served.
        id: the bundle's id, for the account.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.id = bundle.id
        network = bundle.critic
        self._n_observation = len(network.observation_mean)
        self._n_action = network.members[0][0].weight.shape[0] - self._n_observation
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = _onnx_model(network, self._n_observation)
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._observation = np.zeros((1, self._n_observation), np.float32)
        self._alone = _AloneCritic(network)
        self._bound: dict[int, tuple[ort.IOBinding, np.ndarray, np.ndarray]] = {}

    def logits(self, observation: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return logits of Q_safe (k,), float32.

        Args:
            observation: (n_observation,).
            actions: (k, n_action), contract's units, inside its bounds.

        The returned array is overwritten by the next call with the same k.
        """
        k = len(actions)
        if k == 1:
            return self._alone.logits(observation, actions[0])
        if k not in self._bound:
            self._bound[k] = self._bind(k)
        binding, actions_in, logits_out = self._bound[k]
        self._observation[0] = observation
        actions_in[:] = actions
        self._session.run_with_iobinding(binding)
        return logits_out

    def _bind(self, k: int) -> tuple[ort.IOBinding, np.ndarray, np.ndarray]:
        """Bind preallocated arrays for k candidates: a run then copies nothing and allocates nothing."""
        actions, logits = np.zeros((k, self._n_action), np.float32), np.zeros(k, np.float32)
        binding = self._session.io_binding()
        for name, array in (("observation", self._observation), ("actions", actions)):
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return binding, actions, logits


class _AloneCritic:
    """The network for a single action, as matrix-vector products.

    Most proposals pass, and are all that is scored. For one action a run of onnxruntime costs more than its
    arithmetic, the more so in a process that has slept since the last one.

    Every layer's input ends in a 1, which meets the bias in the last row of the layer's weights, and so does its
    output, from a column that is 0 above a 1: ReLU leaves it as it is. Layers of all members lie side by side.
    """

    def __init__(self, network: CriticNetwork) -> None:
        if len({len(member) for member in network.members}) > 1:
            raise ValueError("the members of a safety critic have to be of one depth")
        self._mean, self._scale = network.observation_mean.astype(float), network.observation_scale.astype(float)
        self._bound = network.observation_clip
        firsts, *hidden, lasts = zip(*network.members, strict=True)
        self._input = np.ones(len(firsts[0].weight) + 1, np.float32)
        self._state, self._action = np.split(self._input[:-1], [len(self._mean)])
        self._first = np.hstack([_with_bias(layer) for layer in firsts])
        self._x = np.zeros(self._first.shape[1], np.float32)
        # Per layer: its room for all members, and what each of these multiplies into it.
        self._hidden: list[tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]] = []
        x = self._x
        for layers in hidden:
            weights = [_with_bias(layer) for layer in layers]
            y = np.zeros(sum(weight.shape[1] for weight in weights), np.float32)
            ends_in, ends_out = (np.cumsum([weight.shape[i] for weight in weights])[:-1] for i in (0, 1))
            self._hidden.append((y, list(zip(np.split(x, ends_in), weights, np.split(y, ends_out), strict=True))))
            x = y
        self._last = np.concatenate([_with_bias(layer)[:, 0] for layer in lasts]) / len(lasts)
        self._logits = np.zeros(1, np.float32)

    def logits(self, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Return the logit (1,) of an action (n_action,) in an observation (n_observation,)."""
        self._state[:] = ((observation - self._mean) / self._scale).clip(-self._bound, self._bound)
        self._action[:] = action
        x = np.dot(self._input, self._first, out=self._x)
        np.maximum(x, 0.0, out=x)
        for y, products in self._hidden:
            for x_m, weight, y_m in products:
                np.dot(x_m, weight, out=y_m)
            x = np.maximum(y, 0.0, out=y)
        self._logits[0] = x.dot(self._last)
        return self._logits


def _with_bias(layer: Layer) -> np.ndarray:
    """Return weights (n_in + 1, n_out + 1) with the bias as last row and a last column that gives 1."""
    weight = np.vstack([layer.weight, layer.bias])
    one = np.zeros((len(weight), 1), np.float32)
    one[-1] = 1.0
    return np.hstack([weight, one])


def _onnx_model(network: CriticNetwork, n_observation: int) -> bytes:
    """Return the network as an ONNX model: (observation [1, n], actions [k, m]) -> logits [k].

    The graph is built from the bundle's own arrays at each load, so it can never be of other weights than the bundle.
    """
    nodes, constants = [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    bound = network.observation_clip
    centred = node("Sub", ["observation", constant("mean", network.observation_mean)], "centred")
    scaled = node("Div", [centred, constant("scale", network.observation_scale)], "scaled")
    state = node("Clip", [scaled, constant("low", np.array(-bound)), constant("high", np.array(bound))], "state")
    outputs = []
    for m, member in enumerate(network.members):
        first = member[0]
        weight_state = constant(f"{m}.state", first.weight[:n_observation])
        weight_action = constant(f"{m}.action", first.weight[n_observation:])
        from_state = node("Gemm", [state, weight_state, constant(f"{m}.0.b", first.bias)], f"{m}.from_state")
        from_action = node("MatMul", ["actions", weight_action], f"{m}.from_action")
        x = node("Add", [from_action, from_state], f"{m}.0.y")
        for i, layer in enumerate(member[1:], start=1):
            x = node("Relu", [x], f"{m}.{i}.x")
            weight, bias = constant(f"{m}.{i}.w", layer.weight), constant(f"{m}.{i}.b", layer.bias)
            x = node("Gemm", [x, weight, bias], f"{m}.{i}.y")
        outputs.append(x)
    mean = node("Mean", outputs, "mean_logit")
    node("Reshape", [mean, "flat"], "logits")
    constants.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
    n_action = network.members[0][0].weight.shape[0] - n_observation
    graph = helper.make_graph(
        nodes,
        "safety_critic",
        [
            helper.make_tensor_value_info("observation", TensorProto.FLOAT, [1, n_observation]),
            helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["k", n_action]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["k"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return model.SerializeToString()
