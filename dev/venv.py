"""
Make a virtual environment with Airflow and this package: `python dev/venv.py .venv 3.3.2 dev`.

Runs on any Python, so that an old Python gets a sentence instead of a traceback.
"""

import subprocess
import sys
from pathlib import Path

#: These versions of Airflow do not work with the newest release of a dependency. Airflow's constraints pin it too.
PINS = {
    # With a newer universal-pathlib, ObjectStoragePath cannot open an object store. With a newer FastAPI, the API
    # server cannot read the requests of tasks.
    "3.0": ["universal-pathlib<0.3", "fastapi<0.132"],
    "3.1": ["universal-pathlib<0.3"],
    # With a newer FastAPI, the execution API's models cannot be loaded.
    "3.2": ["fastapi<0.137"],
}


def requirements(airflow: str) -> list[str]:
    """Return the requirements for a version of Airflow, such as `3.3.2`."""
    series = ".".join(airflow.split(".")[:2])
    return [f"apache-airflow=={airflow}", *PINS.get(series, [])]


def main(folder: Path, airflow: str, group: str) -> None:
    """Install Airflow, this package and a dependency group into the folder; the group `runtime` is empty."""
    if sys.version_info < (3, 10):  # noqa: UP036
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Airflow 3 needs Python 3.10 or later. This is Python {found}. Try: make PYTHON=python3.12 …")
    print(f"Setting up {folder} with Airflow {airflow} (once, about a minute) …", flush=True)
    python = str(folder / "bin" / "python")
    if Path(python).exists():
        subprocess.run([python, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    else:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)

    groups = [] if group == "runtime" else ["--group", group]
    wanted = ["--editable", ".", *requirements(airflow), *groups]
    pip = [python, "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check"]
    uv = [str(folder / "bin" / "uv"), "pip", "install", "--quiet", "--system-certs", "--python", python]
    # uv takes seconds instead of pip's minutes, but some package indexes do not have it and some networks block it.
    for command in ([*pip, "install", *quiet, "uv"], [*uv, *wanted]):
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
            subprocess.run([*pip, "install", *quiet, "--upgrade", "pip>=25.1"], check=True)
            subprocess.run([*pip, "install", *quiet, *wanted], check=True)
            break

    for stamp in folder.glob("*.stamp"):
        if not stamp.name.endswith(f"-{airflow}.stamp"):
            stamp.unlink()
    (folder / f"{group}-{airflow}.stamp").touch()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *sys.argv[2:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"Setting up failed at: {' '.join(error.cmd)}")
    except KeyboardInterrupt:
        sys.exit(130)
