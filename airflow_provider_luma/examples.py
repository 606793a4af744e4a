"""`python -m airflow_provider_luma.examples DIR`: copy the example DAGs to where Airflow looks for DAGs."""

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
EXAMPLES = next(one for one in (PACKAGE / "dag_examples", PACKAGE.parent / "example_dags") if one.is_dir())
"""Inside the package where it was installed; in a checkout, beside it."""

COPY_ONE = "python -m airflow_provider_luma.examples ~/airflow/dags example_luma_archive"


def parser() -> argparse.ArgumentParser:
    """Read the options of the command line."""
    options = argparse.ArgumentParser(
        prog="python -m airflow_provider_luma.examples",
        description="List the example DAGs, or copy them to a folder. What is there already stays as it is.",
    )
    options.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="where to, such as ~/airflow/dags")
    options.add_argument("names", nargs="*", metavar="NAME", help="which of them; all, if left out")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """List the examples, or copy them."""
    given = parser().parse_args(arguments)
    files = {path.stem: path for path in sorted(EXAMPLES.glob("example_*.py"))}
    if unknown := [name for name in given.names if name not in files]:
        print(f"There is no example {unknown[0]!r}. Without arguments, this lists them.", file=sys.stderr)
        return 1
    if given.folder is None:
        for name, path in files.items():
            print(f"{name}\n    {ast.get_docstring(ast.parse(path.read_text()))}")
        print(f"\nCopy one: {COPY_ONE}")
        return 0
    folder = given.folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    names = given.names or list(files)
    for name in names:
        copy = folder / f"{name}.py"
        if copy.exists():
            print(f"{copy} is there already, and stays as it is.")
        else:
            shutil.copyfile(files[name], copy)
            print(copy)
    print(f"Run one: airflow dags test {names[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
