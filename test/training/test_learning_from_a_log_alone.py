"""A robot without a world: its log is enough for critic, behaviour policy and policy, judged on held-out episodes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssql_ros.algorithms.logged_critic import LoggedCritic, LoggedCriticSettings, logged_targets
from ssql_ros.cli.main import main
from ssql_ros.contract import load_contract
from ssql_ros.data.data_set import DataSet
from ssql_ros.model.bundle import Rule, load_bundle, save_bundle
from ssql_ros.model.probes import with_probes
from ssql_ros.nn.checkpoint import load_checkpoint, save_checkpoint
from support.diff_drive_bag import record
from support.logs import record_trots

torch.set_num_threads(1)
SMALL = ["critic.hidden=[16,16]", "policy.hidden=[16,16]", "policy.actor_hidden=[16,16]", "policy.batch=32"]
STEPS = ["behaviour=20", "critic=40", "policy=10"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stranger")
    record(folder / "drive", 24)
    rule = ["--incident", "scan_nearest below 0.25"]
    assert (
        main(["contract", "init", str(folder / "drive"), "--robot", "cart", "--out", str(folder / "cart.yaml"), *rule])
        == 0
    )
    assert main(command(folder)) == 0
    return folder


def command(folder: Path) -> list[str]:
    told = ["--contract", str(folder / "cart.yaml"), "--out", str(folder / "out"), "--quiet"]
    return ["learn", str(folder / "drive"), *told, "--steps", *STEPS, "--set", *SMALL]


def figures(folder: Path) -> dict[str, float]:
    return json.loads((folder / "figures.json").read_text())["figures"]


@pytest.mark.long
def test_each_stage_is_judged_on_episodes_that_nothing_was_learned_from(learned):
    contract = load_contract(learned / "cart.yaml")
    bundle = load_bundle(learned / "out" / "bundle.safetensors", contract)
    told = bundle.provenance["logged_calibration"]
    assert (bundle.rule, bundle.policy) == (Rule.PROBABILITY, None)
    assert told["judged_on"].startswith("the 20% of episodes held out")
    critic, policy = figures(learned / "out" / "critic"), figures(learned / "out" / "policy")
    assert critic["episodes"] + critic["held_out_episodes"] == 24
    assert told["episodes"] == critic["held_out_episodes"] == policy["held_out_episodes"]
    assert 0.0 < critic["epsilon"] <= 0.5
    assert {"held_out_action_distance", "held_out_feasible"} <= set(policy)
    page = (learned / "out" / "report.html").read_text()
    for words in (
        "What this log can teach",
        "What it covers",
        "Where the shield would have stepped in",
        "no certificate",
    ):
        assert words in page


def test_finished_stages_are_not_done_again(learned, capsys):
    before = {path: path.stat().st_mtime_ns for path in (learned / "out").glob("*/bundle.safetensors")}
    assert len(before) == 3
    assert main(command(learned)) == 0
    assert capsys.readouterr().out.count("was finished before") == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_critics_say_where_they_were_trained_and_one_that_does_not_can_be_told_later(learned, tmp_path, capsys):
    data, contract = DataSet(learned / "out" / "data"), load_contract(learned / "cart.yaml")
    for stage in ("critic", "policy"):
        domain = load_bundle(learned / "out" / stage / "bundle.safetensors", contract).critic.domain
        assert domain.rows + domain.held_out == len(data)
    bundle = load_bundle(learned / "out" / "bundle.safetensors", contract)
    untold, told = tmp_path / "untold.safetensors", tmp_path / "told.safetensors"
    save_bundle(with_probes(replace(bundle, critic=replace(bundle.critic, domain=None)), contract), untold)
    command = ["bundle", "domain", str(untold), "--data", str(data.path), "--contract", contract.path]
    assert main([*command, "--out", str(told), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures["quantile"] == 0.999
    assert load_bundle(told, contract).critic.domain.header() == figures
    assert main(["bundle", "verify", str(told), "--contract", contract.path]) == 0
    assert f"domain: limit {figures['limit']:.3g} (0.999 of {figures['held_out']}" in capsys.readouterr().out
    assert main([*command, "--out", str(told)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_calibrate_on_a_log_refuses_a_critic_that_has_seen_all_of_it(learned, tmp_path, capsys):
    told = ["--contract", str(learned / "cart.yaml"), "--data", str(learned / "out" / "data")]
    assert main(["calibrate", str(learned / "out" / "bundle.safetensors"), *told, "--dry-run", "--json"]) == 0
    assert {"auc", "skill", "base_rate", "ece"} <= set(json.loads(capsys.readouterr().out)["figures"])
    out = tmp_path / "all"
    more = ["--updates", "10", "--held-out-share", "0", "--set", "hidden=[8,8]", "--quiet"]
    assert main(["train", "critic", *told, "--out", str(out), *more]) == 0
    assert main(["calibrate", str(out / "bundle.safetensors"), *told]) == 2
    assert "has learned from all of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "ssql", "--steps", "1"], "known by its contract alone, has no safe behaviour policy"),
        (["train", "critic", "--set", "hiden=[8]"], "critic has no setting 'hiden'"),
    ],
)
def test_what_a_contract_alone_lacks_is_said(learned, tmp_path, capsys, words, said):
    told = ["--contract", str(learned / "cart.yaml"), "--data", str(learned / "out" / "data")]
    assert main([*words, *told, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert said in capsys.readouterr().err


def test_targets_are_unrolled_along_the_log_up_to_its_incident(learned):
    data = DataSet(learned / "out" / "data")
    fell = next(each for each in data.episodes() if data["incident"][each].any())
    made = logged_targets(data, [fell], gamma_safe=0.5, lookahead=3)
    assert made.incident_value[-4:].tolist() == [0.0, 0.25, 0.5, 1.0]
    assert made.bootstrap[-4:].tolist() == [0.125, 0.0, 0.0, 0.0]
    assert made.steps_to_incident[-4:].tolist() == [3.0, 2.0, 1.0, 0.0]
    assert np.array_equal(made.next_observation[0], data["observation"][fell.start + 3])
    assert np.array_equal(made.next_actions[0], data["action"][fell.start + 3])
    kept = next(each for each in data.episodes() if not data["incident"][each].any())
    with pytest.raises(ValueError, match="expected an incident in at least one of the 1 episodes"):
        logged_targets(data, [kept], gamma_safe=0.5, lookahead=3)


def test_a_critic_that_was_stopped_learns_the_same(learned, tmp_path):
    data, settings = DataSet(learned / "out" / "data"), LoggedCriticSettings(hidden=(8, 8), check_every=10)
    whole, first, second = (LoggedCritic(data, data.episodes(), settings, 30, 0) for _ in range(3))
    for number in range(30):
        whole.step(number)
    for number in range(17):
        first.step(number)
    save_checkpoint(tmp_path / "checkpoint.safetensors", first.state())
    second.restore(load_checkpoint(tmp_path / "checkpoint.safetensors"))
    for number in range(17, 30):
        second.step(number)
    (network, epsilon), (its, other) = whole.result(), second.result()
    assert epsilon == other
    for mine, theirs in zip(network.members, its.members, strict=True):
        assert all(np.array_equal(a.weight, b.weight) for a, b in zip(mine, theirs, strict=True))


def test_a_log_without_incidents_ends_in_a_behaviour_policy_and_says_so(tmp_path, capsys):
    bag, contract, out = tmp_path / "walk", tmp_path / "mini.yaml", tmp_path / "out"
    record_trots(bag, 12, 80, proposals=False)
    assert main(["contract", "init", str(bag), "--out", str(contract), "--incident", "roll beyond 0.3"]) == 0
    told = ["--contract", str(contract), "--out", str(out), "--policy", "none", "--steps", "behaviour=10", "--quiet"]
    assert main(["learn", str(bag), *told]) == 0
    said = capsys.readouterr().out
    assert "No episode of 12 ended in an incident" in said
    assert "no shield: the log has no incident" in said
    assert sorted(path.name for path in out.iterdir()) == ["behaviour", "data", "report.html"]
