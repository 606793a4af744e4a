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
#: Not in dist/, because all files there are uploaded to the package index.
SBOM = CHECKOUT / "sbom"


def run(module: str, *args: str) -> None:
    """Run a Python module in the checkout."""
    subprocess.run([sys.executable, "-m", module, *args], cwd=CHECKOUT, check=True)


def main() -> None:
    """Build and check the distributions, install the wheel into an empty environment, and list the packages there."""
    if not ProjectMetadata(str(CHECKOUT), PluginManager()).core.urls:
        sys.exit(NO_ADDRESS)
    for folder in (DIST, SBOM):
        shutil.rmtree(folder, ignore_errors=True)
    # The wheel is built from the source distribution, which shows that no file is missing there.
    run("build", "--installer", "uv", "--outdir", str(DIST))
    (wheel,) = DIST.glob("*.whl")
    run("twine", "check", "--strict", *map(str, DIST.iterdir()))
    run("check_wheel_contents", str(wheel))
    SBOM.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        run("uv", "venv", "--quiet", folder)
        name, version, *_ = wheel.name.split("-")
        # Installed by name, so that the bill of materials does not contain a path of this machine.
        install = ["install", "--quiet", "--system-certs", "--python", folder, "--find-links", str(DIST)]
        run("uv", "pip", *install, f"{name}=={version}")
        bill = SBOM / f"{name}-{version}.cdx.json"
        options = ["--output-reproducible", "--validate", "--output-file", str(bill)]
        run("cyclonedx_py", "environment", *options, str(Path(folder) / "bin" / "python"))
    print(f"dist/ has {wheel.name} and its source, sbom/{bill.name} lists the packages that it installs")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
