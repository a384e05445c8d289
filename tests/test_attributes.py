"""StarGAN on a table of attributes: several hold at once, and each is a target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gansuite import catalogue, engine
from gansuite.runs import read_json

TABLE = ["name,Red,Bright"]


def faces(root: Path) -> Path:
    """24 pictures that are red or not and bright or not, and their table."""
    root.mkdir()
    rows = list(TABLE)
    for i in range(24):
        red, bright = i % 2, i // 2 % 2
        array = np.full((32, 32, 3), 60 + 120 * bright, np.uint8)
        array[8:24, 8:24, 1:] //= 1 + 3 * red
        array[i, :, :] = 0  # no two are equal
        Image.fromarray(array).save(root / f"{i}.png")
        rows.append(f"{i}.png,{red},{bright}")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.slow
def test_every_attribute_is_a_target(here: Path) -> None:
    root = faces(here / "faces")
    (here / "faces.yaml").write_text(
        f"""
method: {{name: stargan, width: 4, blocks: 1, d_width: 4, d_layers: 3, n_critic: 1}}
data: {{name: attributes, root: {root}, table: table.csv, size: 32, batch: 4, test_fraction: 0.4}}
budget: {{kimg: 0.008}}
evaluate: {{pictures: 4}}
log: {{wandb: disabled}}
"""
    )
    session = engine.train(catalogue.load_experiment("faces.yaml"))
    assert session.method.targets == ("Red", "Bright")
    results = read_json(session.run.results)
    assert set(results["final"]) == {"to_Red", "to_Bright"}
    assert set(results["references"]["do_nothing"]) == {"to_Red", "to_Bright"}
    data = session.data
    with_it, without = data.pictures("test", "Red"), data.pictures("test", "not Red")
    assert len(with_it) + len(without) == len(data.pictures("test"))
    middle = (slice(None), slice(None), slice(10, 22), slice(10, 22))
    green = [x[middle].float().mean((0, 2, 3))[1] for x in (with_it, without)]
    assert green[0] < green[1]
    out = session.method.edit(torch.zeros(2, 3, 32, 32), torch.ones(2, 2))
    assert out.shape == (2, 3, 32, 32)
