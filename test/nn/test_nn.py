"""What makes updates fast: networks, Adam, precision and compilation against float64 and torch's own."""

import copy
import math
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.sac import SAC, SACSettings
from ssql_ros.data.replay import Batch
from ssql_ros.nn import arithmetic, update
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.arithmetic import COMPILE, COMPILED_FROM, PRECISION, Arithmetic
from ssql_ros.nn.checkpoint import load_checkpoint, save_checkpoint
from ssql_ros.nn.networks import Ensemble, update_average
from ssql_ros.nn.update import Update

torch.set_num_threads(1)
CPU = torch.device("cpu")
SHAPES = [(3, 2), (1, 7, 1), (3, 5, 2), (20, 64, 64, 64, 3), (28, 256, 256, 16), (36, 256, 256, 1)]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (PRECISION, COMPILE):
        monkeypatch.delenv(name, raising=False)


def error(found, expected):
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm().clamp_min(1e-9))


def layer_by_layer(x, flat, sizes, members, activation):
    """Outputs (members, batch, n_out) in float64, one member and one layer at a time."""
    found, layers = [], len(sizes) - 1
    lengths = [members * n_in * n_out for n_in, n_out in pairwise(sizes)] + [members * n for n in sizes[1:]]
    parts = flat.split(lengths)
    for m in range(members):
        row = x if x.dim() == 2 else x[m]
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            row = activation(row) if i else row
            row = row @ parts[i].view(members, n_in, n_out)[m] + parts[layers + i].view(members, n_out)[m]
        found.append(row)
    return torch.stack(found)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sizes", SHAPES)
def test_an_ensemble_and_its_gradients_are_those_of_float64(sizes, shared, activation):
    draws = torch.Generator().manual_seed(0)
    for members in (1, 3):
        made = Ensemble(sizes, members, draws, activation=activation)
        with torch.no_grad():
            made.flat.add_(torch.randn(made.flat.shape, generator=draws), alpha=0.02)
        shape = (256, sizes[0]) if shared else (members, 256, sizes[0])
        x = torch.randn(shape, generator=draws).requires_grad_()
        weights = torch.randn((members, 256, sizes[-1]), generator=draws)
        exact = [t.detach().double().requires_grad_() for t in (x, made.flat)]
        expected = layer_by_layer(*exact, sizes, members, getattr(torch.nn.functional, activation))
        slopes = torch.autograd.grad(expected, exact, weights.double())
        # A unit of ReLU that is nearly off may be on in the one alone.
        exactly = 3e-6 if activation == "gelu" else 3e-3
        for precision, limit in ((torch.float32, exactly), (torch.bfloat16, 8e-2)):
            made.precision = precision
            outputs = made(x)
            found = [outputs, *torch.autograd.grad(outputs, (x, made.flat), weights)]
            limit = limit if len(sizes) > 3 else exactly  # without two hidden layers nothing is rounded
            assert max(map(error, found, [expected, *slopes])) < limit
        assert made.frozen(x).grad_fn is not None
        assert torch.autograd.grad(made.frozen(x).sum(), made.flat, allow_unused=True) == (None,)


def test_what_is_not_a_number_is_not_hidden():
    made = Ensemble((5, 128, 128, 2), 1, torch.Generator().manual_seed(0), torch.bfloat16)
    x = torch.ones(9, 5)
    x[4, 1] = math.nan
    assert made(x)[0].isnan().any(dim=1).tolist() == [row == 4 for row in range(9)]


def test_an_average_follows_by_tau():
    target, online = (Ensemble((5, 7, 1), 2, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    expected = 0.98 * target.flat.detach() + 0.02 * online.flat.detach()
    update_average(target, online, 0.02)
    torch.testing.assert_close(target.flat.detach(), expected)


# Adam


def slopes_of(parameters, step):
    """A loss whose gradients change in size and sign."""
    return sum(((p - 0.1 * step) * math.cos(step)).square().sum() + p.sum() for p in parameters)


def test_adams_steps_are_torchs():
    draws = torch.Generator().manual_seed(0)
    start = [torch.randn(size, generator=draws) for size in (1, 15, 1000)]
    own, theirs = ([p.clone().requires_grad_() for p in start] for _ in range(2))
    mine, reference = Adam(own, 3e-3), torch.optim.Adam(theirs, lr=3e-3)
    for step in range(50):
        if step == 30:
            mine.set_rate(1e-3)
            reference.param_groups[0]["lr"] = 1e-3
        mine.descend(slopes_of(own, step))
        reference.zero_grad()
        slopes_of(theirs, step).backward()
        reference.step()
    for a, b in zip(own, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)
    for state, p in zip(mine.state(), theirs, strict=True):
        for name, value in state.items():
            torch.testing.assert_close(value, reference.state[p][name], rtol=1e-5, atol=1e-7)
    assert all(p.grad is None for p in own)


def test_adam_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    p = torch.randn(33, generator=torch.Generator().manual_seed(1)).requires_grad_()
    optimiser = Adam([p], 1e-2)
    for step in range(3):
        optimiser.descend(slopes_of([p], step))
    save_checkpoint(tmp_path / "adam", {"p": p, "state": optimiser.state()})
    optimiser.descend(slopes_of([p], 3))

    loaded = load_checkpoint(tmp_path / "adam")
    again = loaded["p"].requires_grad_()
    other = Adam([again], 1e-2)
    other.restore(loaded["state"])
    assert other.count == 3
    other.descend(slopes_of([again], 3))
    assert torch.equal(p, again)
    other.reset()
    assert (other.count, float(other.state()[0]["exp_avg"].abs().sum())) == (0, 0.0)


def test_adam_refuses_a_loss_that_leaves_a_parameter_out():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="to not have been used"):
        Adam([used, unused], 1e-3).descend(used.sum())


# Precision


@pytest.mark.parametrize(("gain", "widths", "chosen"), [(3.0, (256,), 1), (1.4, (256,), 0), (3.0, (256, 64), 0)])
def test_the_probe_decides_for_wide_layers(monkeypatch, gain, widths, chosen):
    monkeypatch.setattr(arithmetic, "bfloat16_gain", lambda device: gain)
    expected = (torch.float32, torch.bfloat16)[chosen]
    assert Arithmetic(CPU, widths).precision == expected
    for name in ("float32", "bfloat16"):
        monkeypatch.setenv(PRECISION, name)
        assert Arithmetic(CPU, widths).precision == getattr(torch, name)
        # What a caller wants is not for the environment to change.
        assert Arithmetic(CPU, widths, torch.float32).precision == torch.float32


def test_the_probe_measures_once():
    first = arithmetic.bfloat16_gain("cpu")
    assert 0.0 < first < 1000.0
    assert arithmetic.bfloat16_gain("cpu") == first


def test_unknown_words_in_the_environment_are_refused(monkeypatch):
    monkeypatch.setenv(PRECISION, "half")
    with pytest.raises(ValueError, match="SSQL_ROS_PRECISION: expected float32 or bfloat16, got 'half'"):
        Arithmetic(CPU, (8,))
    monkeypatch.setenv(PRECISION, "float32")
    monkeypatch.setenv(COMPILE, "yes")
    with pytest.raises(ValueError, match="SSQL_ROS_COMPILE: expected 0 or 1, got 'yes'"):
        Arithmetic(CPU, (8,))


def learner(hidden=(16, 16), seed=0):
    return SAC(np.zeros(6), np.ones(6), 3, SACSettings(hidden=hidden), seed, CPU)


def test_a_checkpoints_precision_is_kept_or_refused(monkeypatch):
    monkeypatch.setenv(PRECISION, "bfloat16")
    state = copy.deepcopy(learner().state())
    assert state["arithmetic"] == {"precision": "bfloat16", "compiled_from": COMPILED_FROM}
    monkeypatch.delenv(PRECISION)
    other = learner()
    assert other.arithmetic.precision == torch.float32
    other.restore(state)
    assert {other.arithmetic.precision, other.actor.precision, other.target.precision} == {torch.bfloat16}
    monkeypatch.setenv(PRECISION, "float32")
    with pytest.raises(ValueError, match="it computes in bfloat16, and SSQL_ROS_PRECISION asks for float32"):
        learner().restore(state)
    monkeypatch.delenv(PRECISION)
    monkeypatch.setenv(COMPILE, "0")
    with pytest.raises(ValueError, match="compiled from number 10000 on, and SSQL_ROS_COMPILE asks for something else"):
        learner().restore(state)


# Updates


def noise(batch, seed):
    draws = torch.Generator().manual_seed(seed)
    state, next_observation = torch.randn(2, batch, 6, generator=draws)
    action = torch.rand(batch, 3, generator=draws) * 2.0 - 1.0
    return Batch(state, action, torch.randn(batch, generator=draws), next_observation, *torch.zeros(2, batch))


def counted(first):
    """An update that counts its calls, and notes whether it was compiled when it is called."""
    p = torch.ones(2, requires_grad=True)
    optimiser, kept = Adam([p], 1e-3), Arithmetic(CPU, (8,))
    kept.compiled_from = first
    calls = []

    def function(x):
        calls.append("eager")
        loss = (p * x).sum()
        optimiser.descend(loss)
        return {"loss": loss.detach()}

    return Update(function, [optimiser], kept), optimiser, kept, calls


def test_an_update_is_compiled_when_enough_were_made_in_this_process_or_before(monkeypatch):
    made, optimiser, _, calls = counted(first=3)

    def whole(function, device):
        def run(x):
            calls.append("compiled")
            return {"loss": x.sum()}

        return run

    monkeypatch.setattr(update, "whole", whole)
    for _ in range(5):
        made(torch.ones(2))
    assert calls == ["eager"] * 3 + ["compiled"] * 2
    assert optimiser.count == 5
    state = copy.deepcopy(optimiser.state())
    made, optimiser, _, calls = counted(first=3)
    optimiser.restore(state)
    made(torch.ones(2))
    assert calls == ["compiled"]


@pytest.mark.long
def test_without_a_compiler_updates_go_on_eagerly_with_one_line(tmp_path):
    program = """
import numpy as np, torch
from ssql_ros.data.replay import Batch
from ssql_ros.algorithms.sac import SAC, SACSettings
made = SAC(np.zeros(2), np.ones(2), 1, SACSettings(hidden=(8, 8)), 0)
batch = Batch(torch.ones(4, 2), torch.zeros(4, 1), torch.ones(4), torch.ones(4, 2), torch.zeros(4), torch.zeros(4))
losses = [float(made.update(batch)["critic_loss"]) for _ in range(4)]
print(made.arithmetic.compiled_from, made.critic_optimiser.count, made.actor_optimiser.count, losses)
"""
    found = []
    for first, compiler in (("1", "no-such-compiler"), ("0", "g++")):
        # A cache of its own: what was compiled once needs no compiler.
        environment = {"CXX": compiler, COMPILE: first, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / first)}
        found.append(
            subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=True,
                timeout=250,
            )
        )
    assert found[0].stdout.startswith("None 4 4 [")
    assert found[0].stdout == found[1].stdout
    said = found[0].stderr.strip().splitlines()
    assert [line[:43] for line in said] == ["updates are not compiled, and slower for it"]
    assert found[1].stderr == ""


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler")
def test_a_compiled_update_is_the_eager_one_but_for_rounding_and_goes_on_bit_for_bit(tmp_path):
    eager, compiled = learner(), learner()
    compiled.arithmetic.compiled_from = 2
    for step in range(5):
        expected, found = (made.update(noise(32, step)) for made in (eager, compiled))
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
        if step == 2:
            save_checkpoint(tmp_path / "run", compiled.state())
    assert compiled.arithmetic.compiled_from == 2  # it did not fall back
    other = learner(seed=1)
    other.restore(load_checkpoint(tmp_path / "run"))
    for step in (3, 4):
        losses = other.update(noise(32, step))
    assert all(torch.equal(losses[name], found[name]) for name in found)
    for name in ("actor", "critics", "target"):
        assert torch.equal(getattr(other, name).flat, getattr(compiled, name).flat)
