"""Q_safe of a chain that ends in an incident, by its closed form, for a backup that takes over at once or late."""

import numpy as np
import pytest

from ssql_ros.algorithms.safety_critic import CriticSettings, SafetyCriticLearner, transitions_of
from ssql_ros.data.episode import Episode
from ssql_ros.training.critic_training import critic_settings

LENGTH, GAMMA = 6, 0.95
SAFE = LENGTH + 1  # where the backup leads to, and stays
DRIVES, BACKUP = 1.0, -1.0


def episode(begin: int, takes_over: int | None) -> Episode:
    """Drive from `begin` on towards the incident at LENGTH; the backup takes over after so many steps, or never."""
    states, actions, proposals = [begin], [], []
    while len(actions) < LENGTH + 4 and states[-1] != LENGTH:
        backed = takes_over is not None and len(actions) >= takes_over
        proposals.append(BACKUP if backed else DRIVES)
        actions.append(proposals[-1])
        states.append(SAFE if backed or states[-1] == SAFE else states[-1] + 1)
    steps = len(actions)
    nothing = np.zeros(steps)
    column = np.array(actions, np.float32)[:, np.newaxis]
    return Episode(
        None,
        np.eye(SAFE + 1, dtype=np.float32)[states],
        column,
        column,
        np.full((steps + 1, 1), BACKUP, np.float32),
        states[-1] == LENGTH,
        nothing,
        np.full(steps, -1, np.int8),
        nothing,
        nothing,
        0.0,
        0.02,
    )


@pytest.mark.parametrize("delay", [1.0, 2.0, 5.0])
def test_the_risk_of_a_backup_that_comes_late_is_that_of_the_closed_form(delay: float) -> None:
    episodes = [episode(begin, after) for begin in range(LENGTH) for after in (None, 1, 2, 3)] * 40
    data = transitions_of(episodes, GAMMA, 4, delay, seed=1)
    settings = CriticSettings(GAMMA, 1, (64,), 3e-3, tau=0.05, near_fraction=0.0, delay=delay)
    learner = SafetyCriticLearner(data, settings, 0)
    for _ in learner.fit(data, 1500):
        pass
    found = learner.q_safe(np.eye(SAFE + 1, dtype=np.float32)[:LENGTH], np.full((LENGTH, 1), DRIVES, np.float32))
    # The incident is LENGTH - 1 - s steps after the first: it comes when nobody has taken over until then.
    expected = (GAMMA * (1.0 - 1.0 / delay)) ** np.arange(LENGTH - 1.0, -1.0, -1.0)
    np.testing.assert_allclose(found, expected, atol=0.08)


def test_without_a_delay_nothing_is_drawn() -> None:
    episodes = [episode(begin, 2) for begin in range(3)]
    first, second = (transitions_of(episodes, GAMMA, 4, 1.0, seed) for seed in (0, 1))
    for name, column in vars(first).items():
        np.testing.assert_array_equal(column, vars(second)[name])
    assert (first.next_actions == BACKUP).all()


def test_a_delay_below_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match="setting delay: expected at least 1"):
        critic_settings(True, GAMMA, {"delay": 0.5})
