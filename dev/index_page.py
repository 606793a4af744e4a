"""
Prepare the README for the package index: make its links absolute, and add the project's links.

The only place for the repository's public address is `repository` under `[tool.hatch.metadata.hooks.custom]` in
pyproject.toml. hatchling calls this module when it builds or installs. Without an address, the README is not changed.
"""

from __future__ import annotations

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

NO_ADDRESS = """\
The release needs the repository's public address: without it, links and pictures on the package index are broken.
Set it in pyproject.toml, under [tool.hatch.metadata.hooks.custom]: repository = "https://github.com/…/…"
"""


class IndexPage(MetadataHookInterface):
    """Sets the README and the links in the distribution's metadata."""

    def update(self, metadata: dict[str, object]) -> None:
        """Add the README and the links to the metadata. The version is known here."""
        address, tag = self.config["repository"].rstrip("/"), f"v{metadata['version']}"
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        readme = with_absolute_links(text, address, tag) if address else text
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
        metadata["urls"] = links(address, tag) if address else {}


def with_absolute_links(text: str, address: str, tag: str) -> str:
    """Return the Markdown with links and pictures that point to the repository's files at a release."""
    relative = r"\]\((?!https?://|#)"
    text = re.sub(rf"(!\[[^\]]*){relative}", rf"\1]({address}/raw/{tag}/", text)
    return re.sub(relative, f"]({address}/blob/{tag}/", text)


def links(address: str, tag: str) -> dict[str, str]:
    """Return the links next to the README, by name."""
    return {
        "Documentation": f"{address}/blob/{tag}/docs/index.md",
        "Source": address,
        "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }
