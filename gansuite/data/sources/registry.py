"""The published unpaired sets of the CycleGAN family, downloaded on first use."""

from __future__ import annotations

from typing import ClassVar

from gansuite.data.downloads import fetch
from gansuite.data.published import REGISTRY, Published
from gansuite.data.sources.unpaired import Unpaired


class RegistrySet(Unpaired):
    """A set of the registry: found under ``root``, or else downloaded to it."""

    published: ClassVar[Published]
    downloads = True

    def __init__(self, *, root: str | None = None, only: str | None = None) -> None:
        """``root``: default ``data/<name>``. ``only`` keeps one of the two domains."""
        super().__init__(
            root=root if root is not None else f"data/{self.name}",
            domains=list(self.published.domains),
            only=only,
        )

    def _download(self) -> None:
        fetch(self.published.archive, self.root)


def _make(name: str, entry: Published) -> type[RegistrySet]:
    title = "".join(part.capitalize() for part in name.split("_"))
    facts = {
        "__module__": __name__,
        "__doc__": f"The published set {name}.",
        "name": name,
        "summary": entry.summary,
        "published": entry,
    }
    return type(title, (RegistrySet,), facts)


REGISTRY_SOURCES: dict[str, type[RegistrySet]] = {
    name: _make(name, entry) for name, entry in REGISTRY.items()
}
