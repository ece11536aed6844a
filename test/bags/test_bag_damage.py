"""Damaged bags: damage costs what is damaged, in every form of a bag, and the account says where it is."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from ssql_ros.bags import BagError, survey
from ssql_ros.cli.main import main
from ssql_ros.data.data_set import DataSet
from support.bag_forms import (
    CHUNK,
    FILE,
    FORMS,
    MCAP,
    MESSAGE,
    NONE,
    SQLITE,
    Form,
    check_same,
    converted,
    write_as,
)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("form", [form for form in FORMS if form.files == 1 and form.version == 9], ids=str)
def test_a_cut_off_file_gives_what_comes_before_the_cut(
    walk: Path, walk_rows: list[dict], tmp_path: Path, form: Form, metadata: bool, kept: float
) -> None:
    bag = write_as(form, walk, tmp_path / "bag")
    (file,) = (file for file in bag.iterdir() if file.name != "metadata.yaml")
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    if not metadata:
        (bag / "metadata.yaml").unlink()
    if form.compression == CHUNK and kept == 0.5:
        # A chunk of compression is all or nothing, and this walk is no more than one.
        with pytest.raises(BagError, match=r"bag_0\.mcap: is cut off at byte"):
            converted(bag)
        return
    rows, outcome = converted(bag)
    assert any(str(bag) in problem for problem in outcome.problems)
    check_same(rows, walk_rows)
    assert len(rows) > 0.85 * kept * len(walk_rows)
    assert outcome.counts["unreadable"] == 0


@pytest.mark.parametrize("storage", [SQLITE, MCAP])
def test_a_part_of_a_split_bag_that_is_damaged_or_gone_costs_no_other(
    walk: Path, walk_rows: list[dict], tmp_path: Path, storage: StoragePlugin
) -> None:
    bag = write_as(Form(storage, NONE, 3), walk, tmp_path / "bag")
    (middle,) = bag.glob("bag_1*")
    whole = middle.read_bytes()
    middle.write_bytes(whole[: len(whole) // 2])
    rows, outcome = converted(bag)
    assert any(str(middle) in problem for problem in outcome.problems)
    check_same(rows, walk_rows)
    assert 2 / 3 * len(walk_rows) + 20 < len(rows) < len(walk_rows) - 20
    assert {row["episode"] for row in rows} == {0, 1}
    middle.unlink()
    rows, outcome = converted(bag)
    assert any("bag_1" in problem for problem in outcome.problems)
    check_same(rows, walk_rows)
    assert 2 / 3 * len(walk_rows) - 6 < len(rows) <= 2 / 3 * len(walk_rows)


def test_a_page_of_a_database_that_is_overwritten_costs_what_lay_in_it(
    walk: Path, walk_rows: list[dict], tmp_path: Path
) -> None:
    bag = write_as(Form(SQLITE), walk, tmp_path / "bag")
    (file,) = bag.glob("*.db3")
    with closing(sqlite3.connect(file)) as database:
        (size,) = database.execute("PRAGMA page_size").fetchone()
    data = bytearray(file.read_bytes())
    at = len(data) // 2 // size * size
    data[at : at + size] = b"\xff" * size
    file.write_bytes(bytes(data))
    rows, outcome = converted(bag)
    assert any(str(file) in problem and "cannot be read" in problem for problem in outcome.problems)
    check_same(rows, walk_rows)
    assert len(rows) > 0.9 * len(walk_rows)


def test_a_database_whose_pages_point_back_is_read_once_and_ends(
    walk: Path, walk_rows: list[dict], tmp_path: Path
) -> None:
    bag = write_as(Form(SQLITE), walk, tmp_path / "bag")
    (file,) = bag.glob("*.db3")
    with closing(sqlite3.connect(file)) as database:
        (size,) = database.execute("PRAGMA page_size").fetchone()
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()
    data = bytearray(file.read_bytes())
    at = (root - 1) * size
    assert data[at] == 5  # a page of pointers to pages of messages
    cells = [
        int.from_bytes(data[at + 12 + 2 * i :][:2], "big") for i in range(int.from_bytes(data[at + 3 :][:2], "big"))
    ]
    # Half way through, once more the first page.
    middle, first = at + cells[len(cells) // 2], at + cells[0]
    data[middle : middle + 4] = data[first : first + 4]
    file.write_bytes(bytes(data))
    (bag / "metadata.yaml").unlink()
    rows, outcome = converted(bag)
    assert any("follows message" in problem or "cannot be read" in problem for problem in outcome.problems)
    check_same(rows, walk_rows)
    assert len(rows) > 0.9 * len(walk_rows)
    assert outcome.counts["duplicates"] == 0


@pytest.mark.parametrize(
    "form", [Form(SQLITE), Form(SQLITE, MESSAGE), Form(SQLITE, FILE), Form(MCAP), Form(MCAP, CHUNK)], ids=str
)
def test_damage_anywhere_is_read_around_or_refused(walk: Path, tmp_path: Path, form: Form) -> None:
    bag, rng = write_as(form, walk, tmp_path / "bag"), np.random.default_rng(0)
    (file,) = (file for file in bag.iterdir() if file.name != "metadata.yaml")
    whole = file.read_bytes()
    for kind in range(6):
        data = bytearray(whole)
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 5000))
        if kind % 3 == 0:
            for place in rng.integers(len(data), size=20):
                data[place] ^= 0x55
        else:
            data[at : at + length] = rng.bytes(length) if kind % 3 == 1 else bytes(min(length, len(data) - at))
        file.write_bytes(bytes(data))
        try:
            rows, _ = converted(bag)
        except BagError as error:
            told = str(error)
        else:
            told = str(file)
            assert len(rows) <= 500
            assert all(np.isfinite(row["observation"]).all() for row in rows)
            assert len({row["stamp"] for row in rows}) == len(rows)
        assert str(bag) in told


def test_a_recorder_that_was_killed_leaves_its_newest_messages_in_the_log_of_its_database(
    walk: Path, walk_rows: list[dict], tmp_path: Path
) -> None:
    bag = write_as(Form(SQLITE), walk, tmp_path / "bag")
    (file,) = bag.glob("*.db3")
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        last = list(database.execute("SELECT * FROM messages WHERE id > 1000"))
        database.execute("DELETE FROM messages WHERE id > 1000")
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.executemany(f"INSERT INTO messages VALUES ({','.join('?' * len(last[0]))})", last)
        database.commit()
        # As a kill leaves them: a database that has not been closed, and its log.
        killed = tmp_path / "killed" / "bag"
        killed.mkdir(parents=True)
        for part in bag.iterdir():
            if part.suffix in (".db3", ".db3-wal"):
                shutil.copy(part, killed)
    assert len(list(killed.iterdir())) == 2
    before = {part.name: part.read_bytes() for part in killed.iterdir()}
    rows, _ = converted(killed)
    assert [row["stamp"] for row in rows] == [row["stamp"] for row in walk_rows]
    assert {name: (killed / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_without_metadata_everything_is_read_and_the_account_says_so(
    walk: Path, walk_rows: list[dict], tmp_path: Path, form: Form
) -> None:
    bag = write_as(form, walk, tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    rows, outcome = converted(bag)
    (problem,) = outcome.problems
    assert f"{bag / 'metadata.yaml'}: is missing" in problem
    assert "everything in its files could be read" in problem
    assert len(rows) == len(walk_rows)
    assert all(np.array_equal(a["observation"], b["observation"]) for a, b in zip(rows, walk_rows, strict=True))
    seen = survey(bag)
    assert sum(topic.count for topic in seen.topics.values()) == 2000
    assert "metadata.yaml: is missing" in seen.problem


def test_one_bag_of_several_that_cannot_be_read_costs_no_other(walk: Path, tmp_path: Path, capsys) -> None:
    bad = tmp_path / "bad.db3"
    bad.write_bytes(b"SQLite format 3\x00" + bytes(200))
    out = tmp_path / "set"
    command = ["bag", "convert", str(bad), str(walk), "--contract", "minitaur", "--out", str(out), "--quiet", "--json"]
    assert main(command) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 499
    assert any("bad.db3" in problem for problem in told["problems"])
    assert DataSet(out).manifest["problems"] == told["problems"]
