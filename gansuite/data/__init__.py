"""Pictures: sources, views and the data module. What needs PyTorch is imported when it is used."""

from typing import TYPE_CHECKING

from gansuite.data.catalogue import SOURCES, build_source, describe_sources
from gansuite.lazy import attributes

if TYPE_CHECKING:
    from gansuite.data.module import DataModule
    from gansuite.data.sources.base import Source
    from gansuite.data.spec import Batch, DataSpec, Needs
else:
    __getattr__ = attributes(
        __name__,
        {
            "DataModule": "module",
            "Source": "sources.base",
            "Batch": "spec",
            "DataSpec": "spec",
            "Needs": "spec",
        },
    )

__all__ = [
    "SOURCES",
    "Batch",
    "DataModule",
    "DataSpec",
    "Needs",
    "Source",
    "build_source",
    "describe_sources",
]
