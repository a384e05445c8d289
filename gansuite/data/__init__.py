"""Pictures: sources, views and the data module."""

from gansuite.data.catalogue import SOURCES, build_source, describe_sources
from gansuite.data.module import DataModule
from gansuite.data.sources import Source
from gansuite.data.spec import Batch, DataSpec, Needs

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
