"""`python -m airflow_provider_luma.examples DIR`: copy the example DAGs to your folder of DAGs."""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = Path(__file__).parent
EXAMPLES = next(folder for folder in (PACKAGE / "dag_examples", PACKAGE.parent / "example_dags") if folder.is_dir())
"""An installed package contains the folder; in a checkout it is next to the package."""

COMMAND = "python -m airflow_provider_luma.examples"


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    options = argparse.ArgumentParser(
        prog=COMMAND,
        description="List the example DAGs, or copy them to a folder. Files that exist are not changed.",
    )
    options.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="the folder to copy to, such as ~/airflow/dags"
    )
    options.add_argument("names", nargs="*", metavar="NAME", help="the examples to copy (all)")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """List the examples or copy them."""
    given = parser().parse_args(arguments)
    files = {path.stem: path for path in sorted(EXAMPLES.glob("example_*.py"))}
    if unknown := [name for name in given.names if name not in files]:
        print(f"There is no example {unknown[0]!r}. To list the examples, run {COMMAND}", file=sys.stderr)
        return 1
    if given.folder is None:
        for name, path in files.items():
            print(f"{name}\n    {ast.get_docstring(ast.parse(path.read_text()))}")
        print(f"\nCopy one: {COMMAND} ~/airflow/dags example_luma_archive")
        return 0
    folder = given.folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    names = given.names or list(files)
    for name in names:
        copy = folder / f"{name}.py"
        if copy.exists():
            print(f"{copy} exists and was not changed.")
        else:
            shutil.copyfile(files[name], copy)
            print(copy)
    print(f"Run one: airflow dags test {names[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
