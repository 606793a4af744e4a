"""
What the package index shows: the README, with links and pictures that lead somewhere from there, and links beside it.

The one place for the repository's public address is `repository` under `[tool.hatch.metadata.hooks.custom]` in
pyproject.toml. hatchling calls this whenever it builds or installs; without an address the README stays as it is.
"""

from __future__ import annotations

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

NO_ADDRESS = """\
No release without the repository's public address: links and pictures on the package index would lead nowhere.
Set it in pyproject.toml, under [tool.hatch.metadata.hooks.custom]: repository = "https://github.com/…/…"
"""


class IndexPage(MetadataHookInterface):
    """The readme and the links of the distribution's metadata."""

    def update(self, metadata: dict[str, object]) -> None:
        """Add what pyproject.toml leaves to this, once the version is known."""
        address, tag = self.config["repository"].rstrip("/"), f"v{metadata['version']}"
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        readme = with_absolute_links(text, address, tag) if address else text
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
        metadata["urls"] = links(address, tag) if address else {}


def with_absolute_links(text: str, address: str, tag: str) -> str:
    """Return Markdown whose links and pictures of files in the repository are those of a release."""
    relative = r"\]\((?!https?://|#)"
    text = re.sub(rf"(!\[[^\]]*){relative}", rf"\1]({address}/raw/{tag}/", text)
    return re.sub(relative, f"]({address}/blob/{tag}/", text)


def links(address: str, tag: str) -> dict[str, str]:
    """Return the links that stand beside the readme, by their names."""
    return {
        "Documentation": f"{address}/blob/{tag}/docs/index.md",
        "Source": address,
        "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }
