"""The loaders on real pictures, where ``GANSUITE_DATA`` names a folder that has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gansuite.data import DataModule, Needs, build_source

ROOT = os.environ.get("GANSUITE_DATA", "")

CASES: list[tuple[str, str, dict[str, object], Needs]] = [
    ("horse2zebra", "horse2zebra", {}, Needs("unpaired", 2)),
    ("monet2photo", "monet2photo", {"only": "monet"}, Needs("single")),
    ("paired", "facades", {"domains": ["photo", "label"]}, Needs("paired", 2)),
    ("folders", "pacs", {}, Needs("labelled", min_domains=2)),
    ("cifar10", "cifar10", {"domains": ["cat", "dog"]}, Needs("unpaired", 2)),
    ("fashion_mnist", "fashion_mnist", {}, Needs("labelled")),
    ("mnist", "mnist", {}, Needs("single")),
]


@pytest.mark.parametrize(("name", "folder", "options", "needs"), CASES, ids=[c[1] for c in CASES])
def test_real_pictures(name: str, folder: str, options: dict[str, object], needs: Needs) -> None:
    root = Path(ROOT) / folder
    if not ROOT or not root.is_dir():
        pytest.skip(f"GANSUITE_DATA names no folder with {folder}")
    source = build_source(name, root=str(root), **options)
    data = DataModule(source, needs, size=32, load_size=36, batch=8, seed=0)
    data.setup()
    batch = data.train_batch(0)
    counts = data.spec.counts
    assert all(n > 0 for by_domain in counts.values() for n in by_domain.values())
    assert len(batch.images) * 8 == data.images_per_batch
    for images, domain in zip(batch.images, data.spec.domains, strict=False):
        assert images.shape == (8, data.spec.channels, 32, 32)
        assert images.float().std() > 10
        assert len(data.pictures("test", domain)) == counts["test"][domain]
