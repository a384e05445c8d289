"""Scores computed on pixels, and the sliced Wasserstein distance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gansuite import rng
from gansuite.evaluation import pixels, swd
from gansuite.evaluation.comparison import Comparison, to_uint8
from gansuite.evaluation.metrics import L1, PSNR, SSIM, Correlation, MaskedPSNR


def pictures(n: int, seed: int, size: int = 32, channels: int = 3) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, size // 4, size // 4, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(0, 1)
    noise = 0.05 * torch.randn(smooth.shape, generator=g)
    return ((smooth + noise).clamp(0, 1) * 255).round().byte()


def of(metric: Any, *batch: Tensor) -> float:
    """What ``metric`` says of a batch that comes in two parts."""
    for part in zip(*(x.tensor_split(2) for x in batch), strict=True):
        metric.update(*part)
    return float(metric.compute())


def test_to_uint8_rounds_to_the_nearest_level() -> None:
    levels = torch.arange(256).byte().view(1, 1, 16, 16)
    x = levels.float() / 127.5 - 1
    assert torch.equal(to_uint8(x), levels)
    assert torch.equal(to_uint8(x + 0.49 / 127.5 - (x > 0) * 0.98 / 127.5), levels)
    assert to_uint8(torch.tensor([[[[-1.0009, 1.0009]]]])).flatten().tolist() == [0, 255]


@pytest.mark.parametrize(
    "x",
    [
        torch.full((1, 3, 4, 4), 1.01),
        torch.full((1, 3, 4, 4), -1.002),
        torch.full((1, 3, 4, 4), math.nan),
        torch.full((1, 3, 4, 4), math.inf),
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
    ],
)
def test_to_uint8_refuses_what_is_not_in_range(x: Tensor) -> None:
    with pytest.raises(ValueError, match="to_uint8"):
        to_uint8(x)


def test_a_comparison_checks_its_pictures() -> None:
    a, b = pictures(4, 0), pictures(3, 1)
    mask = torch.ones(3, 1, 32, 32, dtype=torch.bool)
    c = Comparison("a2b", a, b, source=b, truth=b, mask=mask, rec=b, idt=a)
    assert len(c.head(2).real) == 2
    mask_head = c.head(2).mask
    assert mask_head is not None
    assert len(mask_head) == 2
    for wrong in (
        {"source": a},
        {"truth": b.float()},
        {"idt": b},
        {"mask": mask.float()},
        {"rec": pictures(3, 0, 16)},
    ):
        with pytest.raises(ValueError, match=f"a2b.*{next(iter(wrong))}"):
            Comparison("a2b", a, b, **wrong)


def test_psnr_is_the_mean_over_pictures() -> None:
    a = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    b = a.clone()
    b[0] += 10
    b[1] += 40
    expected = np.mean([10 * math.log10(255**2 / 100), 10 * math.log10(255**2 / 1600)])
    assert of(PSNR(), a, b) == pytest.approx(expected)
    assert of(PSNR(), a, a) == pytest.approx(10 * math.log10(255**2 * 12))  # not infinite


def test_psnr_inside_and_outside_a_mask() -> None:
    a = torch.full((3, 3, 8, 8), 100, dtype=torch.uint8)
    b, mask = a.clone(), torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    mask[:2, :, :4] = True  # the third has no object
    b[:, :, :4] += 20
    b[:, :, 4:] += 5
    b[2] += 100
    assert of(MaskedPSNR(), a, b, mask) == pytest.approx(10 * math.log10(255**2 / 400))
    assert of(MaskedPSNR(outside=True), a[:2], b[:2], mask[:2]) == pytest.approx(
        10 * math.log10(255**2 / 25)
    )
    assert math.isnan(of(MaskedPSNR(), a, b, torch.zeros_like(mask)))


def test_l1_is_in_units_of_the_range() -> None:
    black = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert of(L1(), black, black + 255) == 1
    assert of(L1(), black, black + 51) == pytest.approx(0.2)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_against_torchmetrics(channels: int) -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    a = pictures(5, 0, channels=channels)
    b = (a.float() * 0.8 + pictures(5, 1, channels=channels).float() * 0.2).round().byte()
    expected = functional.structural_similarity_index_measure(
        a.double(), b.double(), data_range=255.0, sigma=1.5
    )
    assert of(SSIM(), a, b) == pytest.approx(float(expected), abs=1e-6)
    assert of(SSIM(), a, a) == pytest.approx(1)
    assert of(SSIM(), a, 255 - a) < 0
    assert math.isnan(of(SSIM(), a[..., :10], b[..., :10]))


def test_correlation_sees_identity_and_inversion() -> None:
    a, b = pictures(4, 0), pictures(4, 1)
    expected = [
        np.corrcoef(x.numpy().ravel(), y.numpy().ravel())[0, 1] for x, y in zip(a, b, strict=True)
    ]
    assert of(Correlation(), a, b) == pytest.approx(np.mean(expected))
    assert of(Correlation(), a, a) == pytest.approx(1)
    assert of(Correlation(), a, 255 - a) == pytest.approx(-1)
    assert of(Correlation(), a, torch.full_like(a, 9)) == 0


def test_nyquist_excess_sees_a_checkerboard_and_not_a_blur() -> None:
    a = pictures(32, 0)
    base = pixels.nyquist_excess(a)
    assert base is not None
    grid = a.float()
    grid[..., ::2, ::2] += 12
    spotted = pixels.nyquist_excess(grid.clamp(0, 255).byte())
    blurred = pixels.nyquist_excess(
        torch.nn.functional.avg_pool2d(a.float(), 3, 1, 1).round().byte()
    )
    assert spotted is not None
    assert spotted > 10 * base
    assert blurred is not None
    assert blurred < 4 * base
    assert pixels.nyquist_excess(torch.full_like(a, 7)) == pytest.approx(1)
    assert pixels.nyquist_excess(a[..., :31]) is None


def test_swd_of_equal_sets_and_of_halves() -> None:
    a, b = pictures(16, 0), pictures(16, 1)
    setting = {"patches": 32, "directions": 32, "repeats": 1}
    assert swd.sliced_wasserstein(a, a.clone(), **setting) == 0
    floor = swd.sliced_wasserstein(a, b, **setting)
    striped = b.clone()
    striped[..., ::2, :] = (0.7 * b[..., ::2, :]).byte()
    assert 0 < 1.3 * floor < swd.sliced_wasserstein(a, striped, **setting)
    assert floor == swd.sliced_wasserstein(b, a, **setting)
    assert floor == swd.sliced_wasserstein(a, torch.cat([b, a]), **setting)


@pytest.mark.parametrize(
    ("size", "levels"), [(16, [16]), (28, [28]), (32, [32, 16]), (50, [50, 25]), (64, [64, 32, 16])]
)
def test_pyramid_levels(size: int, levels: list[int]) -> None:
    x = torch.rand(2, 3, size, size, dtype=torch.float32)
    found = swd.pyramid(x)
    assert [level.shape[-1] for level in found] == levels
    for level in swd.pyramid(torch.full((1, 1, size, size), 3.0))[:-1]:
        assert level.abs().max() < 1e-5  # band-pass levels of a flat picture are empty


def test_pyramid_filter_against_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = torch.rand(1, 1, 40, 32, dtype=torch.float32)
    taps = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    image = x[0, 0].double().numpy()
    half = ndimage.convolve(image, taps, mode="mirror")[::2, ::2]
    spread = np.zeros_like(image)
    spread[::2, ::2] = half
    fine = image - ndimage.convolve(spread, 4 * taps, mode="mirror")
    levels = swd.pyramid(x)
    assert np.allclose(levels[0][0, 0].numpy(), fine, atol=1e-5)
    assert np.allclose(levels[1][0, 0].numpy(), half, atol=1e-5)


def test_swd_against_a_slow_computation() -> None:
    wasserstein = pytest.importorskip("scipy.stats").wasserstein_distance
    patches, directions = 6, 5
    sets = [pictures(3, seed) for seed in (0, 1)]
    total = []
    for index in range(2):
        draw = rng.numpy_generator(0, "swd patches", index)
        spots = draw.random((3, patches, 2))
        axes = rng.numpy_generator(0, "swd directions", index).standard_normal((directions, 147))
        described = []
        for images in sets:
            level = swd.pyramid(images.float())[index].double().numpy()
            room = level.shape[-1] - 6
            cut = np.stack(
                [
                    level[i, :, (y := int(sy * room)) : y + 7, (x := int(sx * room)) : x + 7]
                    for i in range(3)
                    for sy, sx in spots[i]
                ]
            )
            cut = cut - cut.mean((0, 2, 3), keepdims=True)
            described.append((cut / cut.std((0, 2, 3), keepdims=True)).reshape(len(cut), -1))
        for axis in axes:
            axis = axis / np.linalg.norm(axis)
            total.append(wasserstein(*(x @ axis for x in described)))
    ours = swd.sliced_wasserstein(*sets, patches=patches, directions=directions, repeats=1)
    assert ours == pytest.approx(1e3 * np.mean(total), rel=1e-4)


def test_floats_are_refused_by_swd() -> None:
    with pytest.raises(ValueError, match="uint8"):
        swd.sliced_wasserstein(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16))
