"""The command that lists and copies the example DAGs."""

from __future__ import annotations

import pytest

from airflow_provider_luma.examples import EXAMPLES, main

NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_lists_every_example(capsys):
    """Without arguments, the command lists every example with a sentence."""
    assert main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    for name in NAMES:
        assert listed[listed.index(name) + 1].startswith("    ")


@pytest.mark.parametrize("names", [[], ["example_luma_archive"]], ids=["all", "one"])
def test_copies_examples_to_new_folder(names, tmp_path):
    """The command copies all or the named examples to a folder, and makes the folder if necessary."""
    assert main([str(tmp_path / "dags"), *names]) == 0
    copied = {path.stem: path.read_text() for path in (tmp_path / "dags").iterdir()}
    assert copied == {name: (EXAMPLES / f"{name}.py").read_text() for name in names or NAMES}


def test_keeps_existing_file(tmp_path, capsys):
    """A file that exists is not changed, and the command says so."""
    (tmp_path / "example_luma_archive.py").write_text("mine")
    assert main([str(tmp_path), "example_luma_archive"]) == 0
    assert (tmp_path / "example_luma_archive.py").read_text() == "mine"
    assert "exists and was not changed" in capsys.readouterr().out


def test_unknown_name_copies_nothing(tmp_path, capsys):
    """An unknown name is an error, and nothing is copied."""
    assert main([str(tmp_path), "example_luma_archive", "nope"]) == 1
    assert "'nope'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
