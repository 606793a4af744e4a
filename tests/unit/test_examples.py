"""The command that lists and copies the example DAGs."""

from __future__ import annotations

import pytest

from airflow_provider_luma.examples import EXAMPLES, main

NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_without_arguments_each_example_is_listed_with_a_sentence(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    for name in NAMES:
        assert listed[listed.index(name) + 1].startswith("    ")


@pytest.mark.parametrize("names", [[], ["example_luma_archive"]], ids=["all", "one"])
def test_examples_are_copied_as_they_are_into_a_folder_that_is_made(names, tmp_path):
    assert main([str(tmp_path / "dags"), *names]) == 0
    copied = {path.stem: path.read_text() for path in (tmp_path / "dags").iterdir()}
    assert copied == {name: (EXAMPLES / f"{name}.py").read_text() for name in names or NAMES}


def test_a_file_that_is_there_stays_as_it_is(tmp_path, capsys):
    (tmp_path / "example_luma_archive.py").write_text("mine")
    assert main([str(tmp_path), "example_luma_archive"]) == 0
    assert (tmp_path / "example_luma_archive.py").read_text() == "mine"
    assert "is there already" in capsys.readouterr().out


def test_of_a_name_that_does_not_exist_nothing_is_copied(tmp_path, capsys):
    assert main([str(tmp_path), "example_luma_archive", "nope"]) == 1
    assert "'nope'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
