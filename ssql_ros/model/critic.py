"""Serves a bundle's safety critic: one number for each of many candidate actions at once, by the bundle's rule.

probability   the logit of Q_safe(s, a), the mean over the ensemble; an action is safe where Q_safe <= epsilon
margin        Q_c(s, a), the largest of the ensemble; an action is safe where Q_c < delta

One session of onnxruntime scores proposals, which come alone, and candidates, with the observation's part of the first
layer computed once for all. One thread: the tail of a decision is the scheduler's, and a second thread makes it worse.
No torch: a shield starts in a fraction of a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort

from ssql_ros.model.bundle import Bundle, BundleError, MarginCritic, Network, ProbabilityCritic, Rule
from ssql_ros.model.onnx_graph import OnnxGraph


def logit(probability: float) -> float:
    """Return log(p / (1 - p)) for 0 < p < 1."""
    return math.log(probability) - math.log1p(-probability)


def sigmoid(logits: float) -> float:
    """Return 1 / (1 + exp(-x)); NaN stays NaN."""
    if logits >= 0:
        return 1.0 / (1.0 + math.exp(-logits))
    exponential = math.exp(logits)
    return exponential / (1.0 + exponential)


# Numbers of candidates for which arrays are kept: more than a decision has, and memory stays bounded.
SIZES = 8


class SafetyCritic:
    """Q_safe(s, a), or Q_c(s, a), of one bundle, ready to score candidates.

    Attributes:
        bundle: what is served.
        id: the bundle's id, for the account.
        rule: PROBABILITY: scores are logits of Q_safe; MARGIN: they are Q_c.
        backup: what takes over after the action that is judged; None: whoever proposed it.
        domain: the observations that it was trained on; None: it does not say.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.id = bundle.id
        network = bundle.safety_critic()
        self.rule, self.backup, self.domain = network.rule, network.backup, network.domain
        shapes = {tuple(layer.weight.shape for layer in member) for member in network.members}
        if len(shapes) > 1:
            raise ValueError(f"{bundle.path}: expected members of one shape, got {len(shapes)}: {sorted(shapes)}")
        self._n_observation = len(network.observation_mean)
        self._n_action = network.members[0][0].weight.shape[0] - self._n_observation
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = critic_model(network, self._n_observation, self.rule)
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._observation = np.zeros((1, self._n_observation), np.float32)
        self._bound: dict[int, tuple[Callable[[], Any], np.ndarray, np.ndarray]] = {}

    def logits(self, observation: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return scores (k,), float32: logits of Q_safe, or margins Q_c.

        Args:
            observation: (n_observation,).
            actions: (k, n_action), contract's units, inside its bounds.

        The returned array is overwritten by the next call with the same k.
        """
        k = len(actions)
        if k not in self._bound:
            if len(self._bound) >= SIZES:
                self._bound.pop(next(iter(self._bound)))
            self._bound[k] = self._bind(k)
        run, actions_in, logits_out = self._bound[k]
        self._observation[0] = observation
        actions_in[:] = actions
        logits_out.fill(math.nan)  # a score that was not made is none
        run()
        return logits_out

    def _bind(self, k: int) -> tuple[Callable[[], Any], np.ndarray, np.ndarray]:
        """Bind preallocated arrays for k candidates: a run then copies nothing and allocates nothing."""
        actions, logits = np.zeros((k, self._n_action), np.float32), np.zeros(k, np.float32)
        binding = self._session.io_binding()
        for name, array in (("observation", self._observation), ("actions", actions)):
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return _bare_run(self._session, binding), actions, logits


def _bare_run(session: ort.InferenceSession, binding: ort.IOBinding) -> Callable[[], Any]:
    """Return what runs a session on bound arrays, without what the Python layer asks each time of graphics cards.

    In a process that has slept those questions take 20 us of 240; where a release has no such inner session, they are
    asked.
    """
    inner, bound = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    if inner is None or bound is None:
        return partial(session.run_with_iobinding, binding)
    return partial(inner.run_with_iobinding, bound, None)


def shielding_critic(bundle: Bundle) -> SafetyCritic:
    """Return the critic of a bundle that a shield is to enforce.

    Raises:
        BundleError: it has no critic, or it was calibrated and no threshold could be certified: every action would then
            be refused, and what is left, the least margin at every step, is nothing that anybody has tried or promised.
    """
    critic = bundle.critic
    if isinstance(critic, MarginCritic) and critic.delta is None:
        statement = critic.certificate.get("statement", "")
        raise BundleError(
            f"{bundle.path}: certificate: expected a certified threshold, got none: {statement} "
            f"A shield would refuse every action; train on, or calibrate with more --states or a larger --epsilon-s"
        )
    return SafetyCritic(bundle)


def thresholds_of(bundle: Bundle, epsilon: float | None = None) -> dict[str, float | None]:
    """Return epsilon and delta for `ShieldSettings`: those of the bundle's critic, of which one is None.

    Args:
        epsilon: replaces the bundle's own.

    Raises:
        BundleError: it has no critic, or nothing of it is certified, or an epsilon is given for a critic of margins.
    """
    critic = bundle.safety_critic()
    if isinstance(critic, ProbabilityCritic):
        return {"epsilon": critic.epsilon if epsilon is None else epsilon, "delta": None}
    if epsilon is not None:
        raise BundleError(
            f"{bundle.path}: epsilon {epsilon:g}: its critic is one of margins, which has a delta instead"
        )
    if critic.delta is None:
        raise BundleError(f"{bundle.path}: certificate: expected a certified threshold, got none")
    return {"epsilon": None, "delta": critic.delta}


def critic_model(network: Network, n_observation: int, rule: Rule) -> bytes:
    """Return the network as an ONNX model: (observation [1, n], actions [k, m]) -> logits [k], or margins.

    The graph is built from the bundle's own arrays at each load, so it can never be of other weights than the bundle.
    """
    graph = OnnxGraph(network.activation)
    node, constant = graph.node, graph.constant
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
            x = graph.activated(x, f"{m}.{i}.x")
            weight, bias = constant(f"{m}.{i}.w", layer.weight), constant(f"{m}.{i}.b", layer.bias)
            x = node("Gemm", [x, weight, bias], f"{m}.{i}.y")
        outputs.append(x)
    score = node("Max" if rule is Rule.MARGIN else "Mean", outputs, "score")
    node("Reshape", [score, "flat"], "logits")
    constant("flat", np.array([-1]), np.int64)
    n_action = network.members[0][0].weight.shape[0] - n_observation
    inputs = {"observation": [1, n_observation], "actions": ["k", n_action]}
    return graph.model("safety_critic", inputs, {"logits": ["k"]})
