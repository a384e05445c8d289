"""The embedded dataset: determinism, one animal under every coat, coats that can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from gansuite.data import coats
from gansuite.data.coats import COATS, PARAMETERS, parameters, render, render_many
from gansuite.errors import UserError


def test_deterministic() -> None:
    first, mask = render("zebra", 7, size=48, seed=3)
    again, again_mask = render("zebra", 7, size=48, seed=3)
    assert first.dtype == np.uint8
    assert first.shape == (48, 48, 3)
    assert mask.dtype == np.bool_
    assert mask.shape == (48, 48)
    assert np.array_equal(first, again)
    assert np.array_equal(mask, again_mask)
    assert not np.array_equal(first, render("zebra", 7, size=48, seed=4)[0])


def test_one_and_many_agree() -> None:
    # 11 pictures at 128 need two chunks, whose windows differ from those of a single picture
    indices = [5, 0, 901, 2, 77, 12, 13, 14, 3, 10**6, 6]
    pictures, masks = render_many("giraffe", indices, size=128)
    for k, index in enumerate(indices):
        picture, mask = render("giraffe", index, size=128)
        assert np.array_equal(pictures[k], picture)
        assert np.array_equal(masks[k], mask)
    assert render_many("giraffe", [], size=64)[0].shape == (0, 64, 64, 3)


def test_bad_input() -> None:
    with pytest.raises(UserError, match="did you mean 'zebra'"):
        render("zerba", 0, size=64)
    for size in (0, 31, 257):
        with pytest.raises(UserError, match=f"32 to 256, not {size}"):
            render("horse", 0, size=size)
    for size in (32, 33, 256):
        assert render("horse", 0, size=size)[0].shape == (size, size, 3)


@pytest.mark.parametrize("size", [32, 61, 100])
def test_only_the_coat_differs(size: int) -> None:
    first, mask = render_many(COATS[0], range(30), size=size)
    for coat in COATS[1:]:
        other, other_mask = render_many(coat, range(30), size=size)
        assert np.array_equal(mask, other_mask)
        assert np.array_equal(first[~mask], other[~mask])
        inside = np.abs(first[mask].astype(int) - other[mask])
        assert inside.mean() > 25


@pytest.mark.slow
def test_every_parameter_shows_alike_in_every_coat() -> None:
    # the mapping between two coats is a bijection only if neither hides what the other shows
    base = parameters(range(12))
    drawn = {coat: coats._draw(coat, base, 64)[0].astype(int) for coat in COATS}
    for name, (low, high) in PARAMETERS.items():
        moved = dict(base)
        moved[name] = low + (base[name] - low + 0.4 * (high - low)) % (high - low)
        change = []
        for coat in COATS:
            after, _ = coats._draw(coat, moved, 64)
            change.append(np.abs(drawn[coat] - after).mean((1, 2, 3)))
        smallest, largest = np.min(change, 0).mean(), np.max(change, 0).mean()
        assert smallest > 0.1, name
        assert smallest > 0.3 * largest, name


def test_one_row_of_draws_per_picture() -> None:
    together, alone = parameters([4, 9], seed=1), parameters([9], seed=1)
    assert set(together) == set(PARAMETERS)
    for name, (low, high) in PARAMETERS.items():
        assert together[name][1] == alone[name][0]
        many = parameters(range(100))[name]
        assert low <= many.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < many.max() < high


def test_animals_fit_and_vary() -> None:
    _, masks = render_many("horse", range(200), size=64)
    assert not masks[:, [0, -1]].any()
    assert not masks[:, :, [0, -1]].any()
    width = masks.any(1).sum(1) / 64
    assert width.min() > 0.45
    assert 0.6 < width.mean() < 0.85
    flat = masks.reshape(200, -1).astype(np.float32)
    both = flat @ flat.T
    area = flat.sum(1)
    overlap = both / (area[:, None] + area[None] - both)
    np.fill_diagonal(overlap, 0)
    assert overlap.max() < 0.97
    assert overlap.mean() < 0.7


def test_facing_mirrors() -> None:
    there = parameters(range(20))
    back = dict(there, facing=-there["facing"], place=1 - there["place"])
    _, mask = coats._draw("horse", there, 64)
    _, mirrored = coats._draw("horse", back, 64)
    assert 0.3 < (there["facing"] > 0).mean() < 0.7
    assert (mask != mirrored[:, :, ::-1]).mean() < 1e-4  # rounding at the edge of a pixel


def test_same_picture_at_every_size() -> None:
    for coat in COATS:
        small, small_mask = render_many(coat, range(20), size=32)
        large, large_mask = render_many(coat, range(20), size=128)
        shrunk = large.reshape(20, 32, 4, 32, 4, 3).mean((2, 4))
        assert np.abs(shrunk - small).mean() < 3
        grown = large_mask.reshape(20, 32, 4, 32, 4).mean((2, 4))
        assert small_mask[grown > 0.5].all()
        assert small_mask[grown == 0].mean() < 0.02


def test_coats_are_told_apart_at_32() -> None:
    def features(coat: str, start: int) -> np.ndarray:
        pictures, masks = render_many(coat, range(start, start + 50), size=32)
        rows = []
        for picture, mask in zip(pictures, masks, strict=True):
            inside = picture[mask] / 255
            rows.append(np.concatenate([inside.mean(0), inside.std(0)]))
        return np.array(rows)

    centres = np.stack([features(coat, 1000).mean(0) for coat in COATS])
    right = [
        np.linalg.norm(features(coat, 0)[:, None] - centres, axis=2).argmin(1) == k
        for k, coat in enumerate(COATS)
    ]
    assert np.mean(right) >= 0.98
