"""Pictures of more than three channels, from the folder to the translated file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from test_tools import Translator

from gansuite import cli
from gansuite.data.check import check_data
from gansuite.data.images import read_image
from gansuite.data.module import DataModule
from gansuite.data.sources.folders import Folders
from gansuite.errors import UserError
from gansuite.imaging import strip
from gansuite.rng import numpy_generator
from gansuite.stacks import Stack, read_stack, write_stack
from gansuite.tools.translate import translate


def values(shape: tuple[int, ...], kind: str) -> np.ndarray:
    draw = numpy_generator(0, f"stacks {kind}", *shape)
    if kind.startswith("float"):
        return draw.random(shape).astype(kind)
    return draw.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    return int(ended.value.code or 0)


def save(path: Path, array: np.ndarray, **options: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        tifffile.imwrite(path, array, photometric="minisblack", **options)
    return array


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("first", [False, True])
def test_what_goes_in_comes_out(tmp_path: Path, suffix: str, kind: str, first: bool) -> None:
    """Type, order of the axes and, to the last bit of 16, values: the model inverts."""
    shape = (5, 21, 18) if first else (21, 18, 5)
    array = save(tmp_path / f"in/a{suffix}", values(shape, kind))
    method = Translator(lambda x: -x, channels=5)
    (made,) = translate(method, str(tmp_path / "in"), tmp_path / "out")
    assert made.name == f"a{suffix}"
    back = np.load(made) if suffix == ".npy" else tifffile.imread(made)
    assert (back.dtype, back.shape) == (kind, shape)
    top = 1 if kind == "float32" else np.iinfo(kind).max
    assert np.abs(top - array.astype(np.float64) - back).max() <= (1e-6 if top == 1 else 0)


def test_pages_and_planes_are_channels(tmp_path: Path) -> None:
    array = values((4, 9, 7), "uint16")
    for name, options in (
        ("pages", {}),
        ("planes", {"planarconfig": "separate"}),
        ("big end", {"byteorder": ">"}),
    ):
        save(tmp_path / f"{name}.tif", array, **options)
        read = read_stack(tmp_path / f"{name}.tif", 4)
        assert read.first
        assert (read.array == array.transpose(1, 2, 0)).all()
    with open(tmp_path / "again.tif", "wb") as file:
        write_stack(file, ".tif", Stack(array.transpose(1, 2, 0), True))
    assert (tifffile.imread(tmp_path / "again.tif") == array).all()


def test_for_training_they_have_eight_bits(tmp_path: Path) -> None:
    for kind, top in (("uint8", 255), ("uint16", 65535), ("float64", 1.0)):
        array = save(tmp_path / "a.npy", values((6, 8, 7), kind))
        wanted = np.floor(array.astype(np.float64) / top * 255 + 0.5)
        assert np.abs(read_image(tmp_path / "a.npy", 7) - wanted).max() <= (kind == "float64")
        assert (read_image(tmp_path / "a.npy", 7) == wanted).mean() > 0.99


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((8, 8, 4), np.uint8), r"is 8 x 8 x 4; wanted are 5 channels"),
        (np.zeros((8, 8), np.uint8), r"is 8 x 8; wanted are 5 channels"),
        (np.zeros((8, 8, 5), np.int32), r"holds int32; save it as uint8, uint16 or float32"),
        (np.full((8, 8, 5), 7.5, np.float32), r"values from 7.5 to 7.5; scale floats to 0 to 1"),
        (np.full((8, 8, 5), np.nan, np.float32), r"values from nan to nan"),
        (np.array([[[{}] * 5]], object), "cannot be read as .npy or TIFF"),  # never unpickled
        (b"\x93NUMPY\x01\x00", "cannot be read as .npy or TIFF"),
        (b"a text", "cannot be read as .npy or TIFF"),
    ],
)
def test_other_files_are_one_sentence(tmp_path: Path, array: Any, told: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(array) if isinstance(array, bytes) else np.save(path, array)
    with pytest.raises(UserError, match=told) as error:
        read_image(path, 5)
    assert str(path) in str(error.value)


def test_a_header_that_promises_too_much_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 5)}
        )
    with pytest.raises(UserError, match=r"cannot be read as .npy or TIFF"):
        read_image(path, 5)


def test_a_folder_of_mixed_files(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.npy", values((8, 8, 5), "uint8"))
    save(tmp_path / "a.tif", values((8, 8, 4), "uint8"))
    Image.new("RGB", (8, 8)).save(tmp_path / "thumbnail.png")  # not looked at

    def module(channels: int) -> DataModule:
        return DataModule(
            Folders(root=str(tmp_path)), None, size=8, batch=1, seed=0, channels=channels
        )

    data = module(5)
    data.prepare_data()
    with pytest.raises(UserError, match=r"a.tif' is 8 x 8 x 4; wanted are 5 channels"):
        data.setup()
    with pytest.raises(UserError, match=r"a.tif' is 8 x 8 x 4.*6 channels.*4 other files|0.npy'"):
        module(6).setup()
    (tmp_path / "a.tif").unlink()
    data = module(5)
    assert data.spec.channels == 5
    assert sum(len(data.pictures(split)) for split in ("train", "test")) == 4
    report = check_data(data.source).render()
    assert "5 channels, uint8 (4)" in report


def test_grids_show_the_first_three(tmp_path: Path) -> None:
    x = torch.arange(5).byte()[None, :, None, None].expand(1, 5, 4, 4)
    assert np.asarray(strip(x)).reshape(-1, 3).tolist() == [[0, 1, 2]] * 16
    assert np.asarray(strip(x[:, 3:])).reshape(-1, 3).tolist() == [[3, 4, 0]] * 16


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("cyclegan_coats data.channels=4", "data.channels is 4, but data 'coats' has 1 (grey)"),
        ("cyclegan_coats data.channels=0", "'data.channels' is 0"),
        ("adain_coats data.channels=4 data.name=unpaired data.root={}", "the perceptual network"),
    ],
)
def test_what_has_no_other_channels_says_so(
    tmp_path: Path, capsys: Any, given: str, told: str
) -> None:
    for folder in ("trainA", "trainB", "testA", "testB"):
        for i in range(2):
            save(tmp_path / f"d/{folder}/{i}.npy", values((16, 16, 4), "uint8"))
    words = ["exp", *given.format(tmp_path / "d").split(), f"out={tmp_path / 'runs'}"]
    words += ["log.wandb=disabled"] + ["data.domains=[A,B]"] * ("unpaired" in given)
    assert command(*words) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_trained_scored_and_translated(tmp_path: Path, capsys: Any) -> None:
    """Five channels of 16 bits from two folders through training, scores, grid, translation."""
    for folder, low in (("trainA", 0), ("trainB", 30000), ("testA", 0), ("testB", 30000)):
        for i in range(4):
            array = values((20, 24, 5), "uint16") // 3 + low + i
            save(tmp_path / f"d/{folder}/{i}.npy", array.astype(np.uint16))
    run = tmp_path / "runs/cyclegan_coats/seed0"
    words = f"""exp cyclegan_coats data.name=unpaired data.root={tmp_path}/d
        data.domains=[dark,light] data.channels=5 data.size=16 data.batch=2
        method.width=4 method.d_width=4 method.blocks=1
        method.d_layers=1 budget.kimg=0.016 evaluate.every_kimg=0.016 evaluate.pictures=4
        log.every_kimg=0.008 log.wandb=disabled out={tmp_path}/runs"""
    assert command(*words.split()) == 0
    assert "fd_learned" in capsys.readouterr().out
    assert (run / "samples/final.jpg").is_file()
    assert command("evaluate", str(run)) == 0
    assert "Equal to the scores" in capsys.readouterr().out
    place = tmp_path / "out"
    assert command("translate", str(run), str(tmp_path / "d/testA"), str(place)) == 0
    made = [np.load(place / f"{i}.npy") for i in range(4)]
    assert all(x.dtype == np.uint16 and x.shape == (20, 24, 5) for x in made)
    assert len({x[..., k].tobytes() for x in made for k in range(5)}) == 20
