"""The compiled kernels against torch, and that torch does their work where they cannot be used."""

import copy
import ctypes
import math
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssql_ros.algorithms.sac import SAC, SACSettings
from ssql_ros.data.replay import Batch
from ssql_ros.model.served_network import LOG_STD_HIGH, LOG_STD_LOW
from ssql_ros.nn import native
from ssql_ros.nn.checkpoint import load_checkpoint, optimiser_state, restore_optimiser, save_checkpoint
from ssql_ros.nn.networks import Ensemble, update_average
from ssql_ros.nn.squashed_gaussian import SquashedGaussian, log_probability

needs_kernels = pytest.mark.skipif(not native.available(), reason="no AVX-512 with bfloat16, or nothing was built")

SHAPES = [(3, 2), (1, 7, 1), (3, 5, 2), (20, 64, 64, 64, 3), (40, 130, 97, 33), (28, 256, 256, 16), (36, 256, 256, 1)]
# Relative norm of the error: of float32 sums; of bfloat16 where both sides round alike, but for what lies on the edge
# between two; of bfloat16 against exact numbers, over many rows: each alone can lose a unit that is nearly off.
EXACT, ALIKE, HALF = 3e-6, 3e-3, 8e-2


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    native._library.cache_clear()


@pytest.fixture
def without_kernels(monkeypatch):
    """Torch alone, as on a machine where the kernels cannot be used."""
    monkeypatch.setenv("SSQL_ROS_NATIVE", "0")
    native._library.cache_clear()
    assert not native.available()


def problem(sizes, members, batch, shared, seed=0, dtype=torch.float32):
    """Inputs, parameters and a gradient of the outputs."""
    draws = torch.Generator().manual_seed(seed)
    total = members * sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
    x = torch.randn((batch, sizes[0]) if shared else (members, batch, sizes[0]), generator=draws)
    flat = torch.randn(total, generator=draws) / math.sqrt(max(sizes))
    gradient = torch.randn(members, batch, sizes[-1], generator=draws)
    return x.to(dtype).requires_grad_(), flat.to(dtype).requires_grad_(), gradient.to(dtype)


class Rounded(torch.autograd.Function):
    """x as bfloat16, its gradient as it comes."""

    @staticmethod
    def forward(ctx, x):
        return x.to(torch.bfloat16).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class RoundedGradient(torch.autograd.Function):
    """x as it comes, its gradient as bfloat16."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.to(torch.bfloat16).to(gradient.dtype)


def by_torch(x, flat, sizes, members, half=False):
    """Outputs (members, batch, n_out), layer by layer."""
    shapes = [(members, n_in, n_out) for n_in, n_out in pairwise(sizes)]
    shapes += [(members, 1, n_out) for n_out in sizes[1:]]
    parts = [part.view(shape) for part, shape in zip(flat.split([math.prod(s) for s in shapes]), shapes, strict=True)]
    x, layers = x.expand(members, *x.shape[-2:]), len(sizes) - 1
    for i, weight in enumerate(parts[:layers]):
        x = x.relu() if i else x
        if half and 0 < i < layers - 1:
            x = RoundedGradient.apply(torch.bmm(Rounded.apply(x), Rounded.apply(weight))) + parts[layers + i]
        else:
            x = torch.baddbmm(parts[layers + i], x, weight)
    return x


def error(found, expected):
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm().clamp_min(1e-9))


def results(outputs, x, flat, gradient):
    return [outputs, *torch.autograd.grad(outputs, (flat, x), gradient)]


@needs_kernels
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("sizes", SHAPES)
def test_perceptrons_and_their_gradients_are_torchs(sizes, members, shared, half):
    for batch in (1, 7, 17, 256):
        x, flat, gradient = problem(sizes, members, batch, shared)
        found = results(native.perceptrons(x, flat, sizes, members, half), x, flat, gradient)
        x, flat, gradient = problem(sizes, members, batch, shared, dtype=torch.float64)
        expected = results(by_torch(x, flat, sizes, members), x, flat, gradient)
        rounding = half and len(sizes) > 3
        assert [a.shape for a in found] == [a.shape for a in expected]
        assert max(map(error, found, expected)) < (EXACT if not rounding else HALF if batch > 100 else 0.3)
        if rounding:
            alike = results(by_torch(x, flat, sizes, members, half=True), x, flat, gradient)
            assert max(map(error, found, alike)) < ALIKE


@needs_kernels
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("sizes", SHAPES)
def test_gelu_and_its_gradients_are_torchs(sizes, half):
    """Exact GELU to float32's rounding, on one thread and on two alike, bit for bit."""
    for members, batch, shared in ((1, 17, True), (2, 256, True), (3, 40, False)):
        layers = Ensemble(sizes, members, torch.Generator(), activation="gelu", twice=True).double()
        x, flat, gradient = problem(sizes, members, batch, shared)
        torch.set_num_threads(2)
        found = results(native.perceptrons(4.0 * x, flat, sizes, members, half, gelu=True), x, flat, gradient)
        torch.set_num_threads(1)
        again = results(native.perceptrons(4.0 * x, flat, sizes, members, half, gelu=True), x, flat, gradient)
        assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
        with torch.no_grad():
            quick = native.perceptrons(4.0 * x, flat, sizes, members, half, gelu=True)
        assert torch.equal(quick, found[0])
        x, flat, gradient = problem(sizes, members, batch, shared, dtype=torch.float64)
        expected = results(layers._outputs(4.0 * x, flat), x, flat, gradient)
        assert max(map(error, found, expected)) < (2e-2 if half and len(sizes) > 3 else EXACT)


@needs_kernels
def test_gelu_far_out_and_of_nan():
    x = torch.tensor([-1e30, -40.0, -6.0, -1e-3, 0.0, 1e-3, 6.0, 40.0, 1e30, math.nan])
    # 1 -> 1 -> 1 with weights 1 and biases 0.
    flat = torch.tensor([1.0, 1.0, 0.0, 0.0])
    x.requires_grad_()
    value, _, slope = results(
        native.perceptrons(x[:, None], flat.requires_grad_(), (1, 1, 1), 1, False, True),
        x,
        flat,
        torch.ones(1, len(x), 1),
    )
    exact = x.detach().double().requires_grad_()
    expected = torch.nn.functional.gelu(exact)
    (exact_slope,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(
        value[0, :, 0].detach().double(), expected.detach(), rtol=1e-6, atol=2e-7, equal_nan=True
    )
    torch.testing.assert_close(slope[:-1].double(), exact_slope[:-1], rtol=1e-6, atol=1e-6)
    assert slope[-1].isnan()


@needs_kernels
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    members=st.integers(1, 4),
    batch=st.integers(0, 40),
    shared=st.booleans(),
    half=st.booleans(),
    threads=st.integers(1, 3),
)
def test_any_shape(sizes, members, batch, shared, half, threads):
    torch.set_num_threads(threads)
    x, flat, gradient = problem(sizes, members, batch, shared)
    found = results(native.perceptrons(x, flat, sizes, members, half), x, flat, gradient)
    x, flat, gradient = problem(sizes, members, batch, shared, dtype=torch.float64)
    # Rounded where the kernels round: against exact numbers a unit that is nearly off may be on in the one alone, which
    # is most of the gradient where there are few units and few rows.
    expected = results(by_torch(x, flat, sizes, members, half), x, flat, gradient)
    assert max(map(error, found, expected)) < (5e-2 if half else 1e-3)


@needs_kernels
def test_few_outputs_need_no_gradients_and_are_the_same():
    for sizes in SHAPES:
        x, flat, _ = problem(sizes, 2, 19, shared=True)
        learning = native.perceptrons(x, flat, sizes, 2, half=True)
        with torch.no_grad():
            assert torch.equal(native.perceptrons(x, flat, sizes, 2, half=True), learning)


@needs_kernels
@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("sizes", [(36, 256, 256, 1), (33, 130, 250, 97, 5)])
def test_the_number_of_threads_changes_no_bit(sizes, members, half):
    x, flat, gradient = problem(sizes, members, 250, shared=True)
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(results(native.perceptrons(x, flat, sizes, members, half), x, flat, gradient))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@needs_kernels
def test_what_is_not_a_number_is_not_hidden():
    sizes = (5, 32, 32, 2)
    x, flat, _ = problem(sizes, 1, 9, shared=True)
    with torch.no_grad():
        x[4, 1] = math.nan
        found = native.perceptrons(x, flat, sizes, 1, half=True)[0]
    assert found.isnan().any(dim=1).tolist() == [row == 4 for row in range(9)]


@needs_kernels
def test_wrong_shapes_are_refused():
    x, flat, _ = problem((3, 5, 2), 2, 4, shared=True)
    for wrong in (x[:, :2], x[0], x.expand(3, 4, 3), x.expand(1, 2, 4, 3)):
        with pytest.raises(ValueError, match="expected 3 inputs of 2 members"):
            native.perceptrons(wrong, flat, (3, 5, 2), 2, half=False)
    with pytest.raises(ValueError, match="64 parameters"):
        native.perceptrons(x, flat[:-1], (3, 5, 2), 2, half=False)


@needs_kernels
def test_rows_that_members_share_by_a_dimension_of_one():
    x, flat, _ = problem((3, 5, 2), 2, 4, shared=True)
    expected = native.perceptrons(x, flat, (3, 5, 2), 2, half=False)
    assert torch.equal(native.perceptrons(x[None], flat, (3, 5, 2), 2, half=False), expected)


@needs_kernels
def test_an_ensemble_answers_as_without_the_kernels(monkeypatch):
    for precision, limit in ((torch.float32, EXACT), (torch.bfloat16, HALF)):
        ensemble = Ensemble((28, 256, 256, 1), 2, torch.Generator().manual_seed(0), precision)
        x, _, gradient = problem((28, 256, 256, 1), 2, 100, shared=True)
        with_kernels = results(ensemble(x), x, ensemble.flat, gradient)
        with monkeypatch.context() as patch:
            patch.setattr(native, "available", lambda: False)
            without = results(ensemble(x), x, ensemble.flat, gradient)
        assert max(map(error, with_kernels, [part.double() for part in without])) < limit


@needs_kernels
@pytest.mark.parametrize("n_action", [1, 8, 16, 19])
def test_draws_and_their_gradients_are_torchs(n_action):
    draws = torch.Generator().manual_seed(n_action)
    raw = torch.randn(300, 2 * n_action, generator=draws) * 2.0
    raw[:20, :n_action] *= 20.0  # so that tanh saturates
    raw[100:, n_action:] *= 5.0  # so that the log std is clipped at either end
    z = torch.randn(300, n_action, generator=draws)
    # Away from saturation an action's gradient is of its own size; in it, it vanishes like 1 - a^2.
    weights = torch.randn(300, n_action, generator=draws), torch.randn(300, generator=draws)

    raw.requires_grad_()
    found = native.draw(raw, z, LOG_STD_LOW, LOG_STD_HIGH)
    (slope,) = torch.autograd.grad(found, raw, weights)

    exact = raw.detach().double().requires_grad_()
    mean, log_std = exact.chunk(2, dim=1)
    log_std = log_std.clamp(LOG_STD_LOW, LOG_STD_HIGH)
    u = mean + log_std.exp() * z.double()
    expected = torch.tanh(u), log_probability(u, z.double(), log_std)
    (expected_slope,) = torch.autograd.grad(expected, exact, [w.double() for w in weights])

    for a, b in ((found[0], expected[0]), (found[1], expected[1]), (slope, expected_slope)):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-5 * float(b.detach().abs().mean()))
    assert found[0].abs().max() <= 1.0


@needs_kernels
def test_the_policys_draw_is_the_same_with_and_without(monkeypatch):
    actor = SquashedGaussian(5, 3, (32,), torch.Generator().manual_seed(0))
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    with_kernels = actor.sample(x, torch.Generator().manual_seed(2))
    monkeypatch.setattr(native, "available", lambda: False)
    without = actor.sample(x, torch.Generator().manual_seed(2))
    for a, b in zip(with_kernels, without, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def descents(optimiser_of, steps, parameters):
    """Parameters after steps down a loss whose gradients change in size and sign."""
    parameters = [p.clone().requires_grad_() for p in parameters]
    optimiser = optimiser_of(parameters)
    for step in range(steps):
        loss = sum(((p - 0.1 * step) * math.cos(step)).square().sum() + p.sum() for p in parameters)
        if isinstance(optimiser, native.Adam):
            optimiser.descend(loss)
        else:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return parameters, optimiser


@pytest.mark.parametrize("kernels", [True, False])
def test_adams_steps_are_torchs(monkeypatch, kernels):
    if not kernels:
        monkeypatch.setattr(native, "available", lambda: False)
    draws = torch.Generator().manual_seed(0)
    start = [torch.randn(size, generator=draws) for size in (1, 15, 1000)]
    own, mine = descents(lambda p: native.Adam(p, lr=3e-3), 50, start)
    theirs, reference = descents(lambda p: torch.optim.Adam(p, lr=3e-3), 50, start)
    for a, b in zip(own, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)
        assert mine.state[a].keys() == reference.state[b].keys()
        for name in mine.state[a]:
            torch.testing.assert_close(mine.state[a][name], reference.state[b][name], rtol=1e-5, atol=1e-7)
    assert all(p.grad is None for p in own)


def test_adam_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    draws = torch.Generator().manual_seed(1)
    p = torch.randn(33, generator=draws).requires_grad_()
    optimiser = native.Adam([p], lr=1e-2)
    for _ in range(3):
        optimiser.descend(p.square().sum())
    save_checkpoint(tmp_path / "adam", {"p": p, "state": optimiser_state(optimiser)})
    optimiser.descend(p.square().sum())

    loaded = load_checkpoint(tmp_path / "adam")
    again = loaded["p"].requires_grad_()
    other = native.Adam([again], lr=1e-2)
    restore_optimiser(other, loaded["state"])
    other.descend(again.square().sum())
    assert torch.equal(p, again)


def test_adam_refuses_a_loss_that_leaves_a_parameter_out():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="to not have been used"):
        native.Adam([used, unused], lr=1e-3).descend(used.sum())


@needs_kernels
def test_autograd_notices_that_parameters_have_moved():
    ensemble = Ensemble((3, 8, 1), 1, torch.Generator().manual_seed(0))
    optimiser = native.Adam(ensemble.parameters(), lr=1e-2)
    old = ensemble(torch.ones(4, 3)).sum()
    optimiser.descend(ensemble(torch.ones(4, 3)).sum())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        old.backward()


@needs_kernels
def test_an_average_is_torchs():
    target, online = (Ensemble((5, 7, 1), 2, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    expected = torch.lerp(target.flat.detach(), online.flat.detach(), 0.02)
    update_average(target, online, 0.02)
    torch.testing.assert_close(target.flat.detach(), expected)


def noise(batch, n_observation, n_action, seed):
    draws = torch.Generator().manual_seed(seed)
    state, following = torch.randn(2, batch, n_observation, generator=draws)
    action = torch.rand(batch, n_action, generator=draws) * 2.0 - 1.0
    return Batch(state, action, torch.randn(batch, generator=draws), following, *torch.zeros(2, batch))


@needs_kernels
def test_updates_of_sac_are_torchs(monkeypatch):
    learner = SAC(np.zeros(6), np.ones(6), 3, SACSettings(hidden=(48, 40)), seed=0)
    other = copy.deepcopy(learner)
    other.generator = torch.Generator().manual_seed(1)  # copies of a generator share its state
    learner.generator = torch.Generator().manual_seed(1)
    # The copied optimisers hold the old parameters.
    other.actor_optimiser = other._adam([*other.actor.parameters(), other.temperature.log])
    other.critic_optimiser = other._adam(list(other.critics.parameters()))
    for step in range(10):
        found = learner.update(noise(64, 6, 3, step))
        with monkeypatch.context() as patch:
            patch.setattr(native, "available", lambda: False)
            expected = other.update(noise(64, 6, 3, step))
        for name in found:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    for name in ("actor", "critics", "target"):
        # Adam's first steps are of one length whatever the gradient, so that rounding can turn one whose sign is open.
        moved = (getattr(learner, name).flat - getattr(other, name).flat).detach().abs()
        assert float(moved.mean()) < 1e-5


# Where the kernels cannot be used.


def test_torch_alone_learns_too(without_kernels):
    learner = SAC(np.zeros(6), np.ones(6), 3, SACSettings(hidden=(16,)), seed=0)
    before = learner.actor.flat.clone()
    losses = learner.update(noise(64, 6, 3, 0))
    assert all(value.isfinite().all() for value in losses.values())
    assert not torch.equal(before, learner.actor.flat)


def test_a_library_that_is_missing_or_damaged_is_done_without(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "_FOLDERS", [tmp_path])
    native._library.cache_clear()
    assert not native.available()
    (tmp_path / "_kernels.so").write_bytes(b"not a library")
    native._library.cache_clear()
    assert not native.available()


STAND_IN = """
int ssql_supported() { return %d; }
int ssql_interface() { return %d; }
void ssql_kept() {} void ssql_forward() {} void ssql_backward() {} void ssql_draw() {} void ssql_draw_backward() {}
void ssql_average() {} void ssql_adam() {}
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize(
    ("supported", "interface", "fits"),
    [
        pytest.param(1, 0, True, id="fits"),
        pytest.param(0, 0, False, id="processor"),
        pytest.param(1, -1, False, id="older"),
    ],
)
def test_a_processor_without_the_instructions_and_an_older_library(monkeypatch, tmp_path, supported, interface, fits):
    source = tmp_path / "stand_in.c"
    source.write_text(STAND_IN % (supported, native._INTERFACE + interface))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "_kernels.so", source], check=True)
    monkeypatch.setattr(native, "_FOLDERS", [tmp_path])
    native._library.cache_clear()
    assert native.available() == fits


@needs_kernels
def test_a_forked_process_has_no_helper_threads_and_does_without():
    program = """
import os, torch
from ssql_ros.nn import native
torch.set_num_threads(2)
x, flat = torch.randn(9, 4), torch.randn(3 * (5 * 6 + 7 * 2))
expected = native.perceptrons(x, flat, (4, 6, 2), 3, False)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(native.perceptrons(x, flat, (4, 6, 2), 3, False), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_the_library_is_built_where_the_compiler_can():
    # The set-up must not fail without it, so nothing else would say that the build has gone wrong.
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx512_bf16" not in flags or os.environ.get("SSQL_ROS_NATIVE") == "0":
        pytest.skip("a processor without the instructions")
    assert native.available()
    assert isinstance(native._library(), ctypes.CDLL)
