"""`make dist`: a source distribution and a wheel in dist/, checked, and a bill of materials in sbom/."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from dev.index_page import NO_ADDRESS

CHECKOUT = Path(__file__).parents[1]
DIST = CHECKOUT / "dist"
#: Beside dist/, all of which is uploaded to the package index.
SBOM = CHECKOUT / "sbom"


def run(module: str, *args: str) -> None:
    """Run a module of this Python, in the checkout."""
    subprocess.run([sys.executable, "-m", module, *args], cwd=CHECKOUT, check=True)


def main() -> None:
    """Build, check, install the wheel where nothing else is, and list all that came with it."""
    if not ProjectMetadata(str(CHECKOUT), PluginManager()).core.urls:
        sys.exit(NO_ADDRESS)
    for folder in (DIST, SBOM):
        shutil.rmtree(folder, ignore_errors=True)
    # The wheel is built from the source distribution, which so is seen to hold all it takes.
    run("build", "--installer", "uv", "--outdir", str(DIST))
    (wheel,) = DIST.glob("*.whl")
    run("twine", "check", "--strict", *map(str, DIST.iterdir()))
    run("check_wheel_contents", str(wheel))
    SBOM.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        run("uv", "venv", "--quiet", folder)
        name, version, *_ = wheel.name.split("-")
        # By its name, for a bill does not say in which folder of this machine the wheel was.
        install = ["install", "--quiet", "--system-certs", "--python", folder, "--find-links", str(DIST)]
        run("uv", "pip", *install, f"{name}=={version}")
        bill = SBOM / f"{name}-{version}.cdx.json"
        options = ["--output-reproducible", "--validate", "--output-file", str(bill)]
        run("cyclonedx_py", "environment", *options, str(Path(folder) / "bin" / "python"))
    print(f"{wheel.name} and its source are in dist/, what comes with them is in sbom/{bill.name}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
