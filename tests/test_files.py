"""Files written whole or not at all."""

import os

import pytest

from data.files import atomic_write, path_problem


def test_a_part_follows_no_link_and_leaves_none(tmp_path, monkeypatch):
    """Whoever shares the folder may have guessed the name of the part and put a link there."""
    monkeypatch.setattr("secrets.token_hex", lambda count: "guessed")
    monkeypatch.setattr("os.getpid", lambda: 7)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for guess in ("guessed", "7"):
        (tmp_path / f".out.csv.{guess}.part").symlink_to(victim)
    with pytest.raises(OSError, match="out.csv: cannot be written: File exists"):
        with atomic_write(tmp_path / "out.csv", "w") as file:
            file.write("new")
    assert victim.read_text() == "mine" and not (tmp_path / "out.csv").exists()


def test_a_part_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    for mode, content in (("wb", b"new"), ("w", "new")):
        with atomic_write(tmp_path / "out", mode) as file:
            assert len(list(tmp_path.glob(".out.*.part"))) == 1
            file.write(content)
        assert (tmp_path / "out").read_bytes() == b"new"
        assert os.stat(tmp_path / "out").st_mode == os.stat(tmp_path / "plain").st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "plain"]


@pytest.mark.parametrize("path, problem", [
    ("images/0000.png", ""), ("2020-01-01T12:30:00.png", ""), ("a/b..c/..d.png", ""),
    ("images\\0000.png", "write / for \\"), ("\\\\server\\share\\0.png", "write / for \\"),
    ("D:\\images\\0.png", "leads out"), ("c:0.png", "leads out"), ("/a.png", "leads out"),
    ("a/../b.png", "leads out"), ("a//b.png", "expected folders and a name"),
    ("./a.png", "expected folders and a name"), ("a\0b", "expected folders and a name")])
def test_what_is_wrong_with_a_path_is_said(path, problem):
    assert problem in path_problem(path) and bool(problem) == bool(path_problem(path))
