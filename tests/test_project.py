"""A project of one's own: what `gansuite init` writes, and methods found by entry point."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gansuite import catalogue, config, methods
from gansuite.errors import UserError
from gansuite.methods import describe_methods, method_class, method_names, method_signature
from gansuite.tools.project import write_project

ROOT = Path(__file__).resolve().parents[1]
Install = Callable[..., None]


@pytest.fixture
def install(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package the way pip does, but into ``installed/``: its entry points of the group
    of methods. What it imported is forgotten in the end."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(here / "installed"))

    def install(name: str, **points: str) -> None:
        info = here / "installed" / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[gansuite.methods]", *lines]))
        methods._outside.cache_clear()

    yield install
    methods._outside.cache_clear()
    for name in set(sys.modules) - before:
        if "installed" in str(getattr(sys.modules[name], "__file__", "")) or name == "mine":
            del sys.modules[name]


def write(here: Path, name: str, text: str) -> None:
    file = here / "installed" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_project_lists_and_trains_its_method(
    here: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = write_project(here / "mine")
    assert "mine" in lines[0]
    monkeypatch.chdir(here / "mine")
    monkeypatch.syspath_prepend(str(here / "mine"))
    text = Path("pyproject.toml").read_text()
    assert '[project.entry-points."gansuite.methods"]\nmygan = "mine.mygan:MyGAN"\n' in text
    install("mine", mygan="mine.mygan:MyGAN")
    shown = catalogue.inventory()
    told = "A generator and a discriminator under the least-squares loss"
    assert ("mygan", told) in shown["Methods (method.name)"]
    names = [name for name, _ in shown["Experiments (gansuite exp NAME)"]]
    assert {"mygan_coats", "my_photos", "cyclegan_coats"} <= set(names)
    photos = catalogue.load_experiment("my_photos")
    assert (photos.data["domains"], photos.data["size"]) == (["first", "second"], 128)
    with pytest.raises(UserError, match=r"no key 'method.widht'; did you mean 'method.width'"):
        catalogue.load_experiment("mygan_coats", ["method.widht=3"])
    assert "mine.mygan" not in sys.modules  # all this without importing it
    # its own test, as it stands
    monkeypatch.syspath_prepend(str(here / "mine/tests"))
    import test_mygan  # type: ignore[import-not-found]

    test_mygan.test_two_batches(here / "out", monkeypatch)
    run = here / "out" / "mygan_coats" / "seed0"
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["experiment"]["method"] == {
        "name": "mygan",
        "width": 4,
        "z_dim": 100,
        "weights": {"gan": 1.0},
    }
    del sys.modules["test_mygan"]


def test_nothing_is_overwritten(here: Path) -> None:
    (here / "mine/tests").mkdir(parents=True)
    (here / "mine/tests/test_mygan.py").write_text("my work")
    with pytest.raises(UserError, match=r"mine/tests/test_mygan.py is there already"):
        write_project(here / "mine")
    assert [p.name for p in (here / "mine").rglob("*")] == ["tests", "test_mygan.py"]
    for name, reason in (
        ("3d", "gives no name for a package"),
        ("class", "gives no name for a package"),
        ("torch", "A package 'torch' is installed already"),
    ):
        with pytest.raises(UserError, match=reason):
            write_project(here / name)
        assert not (here / name).exists()
    (here / "file").write_text("")
    with pytest.raises(UserError, match=r"file/inner could not be written \(Not a directory\)"):
        write_project(here / "file/inner")
    write_project(here / "Two Words-2")
    assert (here / "Two Words-2/two_words_2/mygan.py").is_file()
    assert "mypackage" not in (here / "Two Words-2/README.md").read_text()


def test_a_method_of_another_package_that_will_not_do(here: Path, install: Install) -> None:
    write(here, "strange.py", "class Plain:\n    '''Not a method.'''\n\nraising = 1\n")
    write(here, "broken.py", "import no_such_module\nclass Gone: ...\n")
    install(
        "strange",
        plain="strange:Plain",
        number="strange:raising",
        missing="strange:Nothing",
        gone="broken:Gone",
        nowhere="no_such:X",
        cyclegan="strange:Plain",
    )
    assert {"plain", "gone", "cyclegan", "vanilla"} <= set(method_names())
    start = "The method '{}' of package strange ({}) "
    for name, value, expected in (
        ("plain", "strange:Plain", "is no Method; its entry point must name a subclass of it."),
        ("number", "strange:raising", "is no Method; "),
        ("missing", "strange:Nothing", "cannot be imported: module 'strange' has no attribute"),
        ("gone", "broken:Gone", "cannot be imported: No module named 'no_such_module'; mend"),
        ("nowhere", "no_such:X", "cannot be imported: No module named 'no_such'; mend that"),
    ):
        with pytest.raises(UserError) as caught:
            method_class(name)
        assert str(caught.value).startswith(start.format(name, value) + expected)
    for ask in (method_class, method_signature):
        with pytest.raises(UserError, match="package strange gives a method 'cyclegan', which is"):
            ask("cyclegan")
    shown = dict(describe_methods())  # one that will not do spoils no list
    assert shown["plain"] == "Not a method"
    assert shown["cyclegan"].startswith("(package strange gives a method 'cyclegan'")
    assert shown["nowhere"] == "(no_such:X)"
    assert shown["vanilla"] == "A generator against a discriminator"
    assert method_class("vanilla").__name__ == "VanillaGAN"


def test_two_packages_of_one_name(here: Path, install: Install) -> None:
    install("one", mine="a:A")
    install("one_again", mine="a:A")  # an editable install beside another is one
    method = next(point for point in methods._outside()["mine"])
    assert method.value == "a:A"
    install("two", mine="b:B")
    with pytest.raises(UserError, match=r"^Both package .*two.* give a method 'mine'; uninst"):
        method_signature("mine")


def test_experiments_here_come_before_those_of_the_package(here: Path) -> None:
    (here / "experiments").mkdir()
    (here / "experiments/vanilla_coats.yaml").write_text("extends: stylegan_coats\nseed: 9\n")
    (here / "experiments/compare_mine.yaml").write_text("compare: {experiments: [vanilla_coats]}\n")
    e = catalogue.load_experiment("vanilla_coats")
    assert (e.method["name"], e.seed) == ("stylegan", 9)
    assert catalogue.load_experiment("stylegan_coats").seed == 0
    assert config.experiment_files()["vanilla_coats"] == Path("experiments/vanilla_coats.yaml")
    assert {"compare_mine", "compare_coats"} <= config.comparison_files().keys()
    # of two bases of one name the one beside the file counts
    (here / "experiments/_base").mkdir()
    (here / "experiments/_base/coats.yaml").write_text("extends: stylegan_coats\nseed: 5\n")
    (here / "experiments/mine.yaml").write_text("extends: _base/coats\n")
    assert catalogue.load_experiment("mine").seed == 5


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, built as sdist, and the wheel built from that sdist."""
    out = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = out.glob("*.tar.gz")
    subprocess.run(["tar", "xzf", str(sdist), "-C", str(out)], check=True)
    folder = out / sdist.name.removesuffix(".tar.gz")
    subprocess.run([*build, "-t", "wheel"], cwd=folder, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m <words>`` where the wheel is installed and the checkout is not seen."""
    (file,) = built.glob("*.whl")
    target = built / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--target", str(target), str(file)], check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": str(target), "GANSUITE_CACHE": str(built / "cache")}

    def run(*words: str, path: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
        own = {**env, "PYTHONPATH": os.pathsep.join(filter(None, (path, env["PYTHONPATH"])))}
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, env=own, capture_output=True, text=True, **more)

    return run


TINY = (
    *("data.train=8", "data.test=4", "data.batch=2", "method.width=4", "trainer.accelerator=cpu"),
    *("budget.kimg=0.004", "log.every_kimg=0.002", "evaluate.every_kimg=null"),
    *("evaluate.pictures=4", "evaluate.samples=2", "log.wandb=disabled"),
)


@pytest.mark.slow
def test_a_wheel_in_an_empty_folder(here: Path, wheel: Any, built: Path) -> None:
    done = wheel("gansuite", "config", "cyclegan_coats")
    assert done.stdout == catalogue.load_experiment("cyclegan_coats").yaml(), done.stderr
    done = wheel("gansuite", "list", "--names")
    assert done.stdout.split() == [*config.experiment_files(), *config.comparison_files()]
    done = wheel("gansuite", "exp", "vanilla_coats", *TINY)
    assert done.returncode == 0, done.stderr
    assert (here / "runs/vanilla_coats/seed0/report.html").is_file()
    commit = "import gansuite; print(gansuite.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", commit],
        env={**os.environ, "PYTHONPATH": str(built / "installed")},
        capture_output=True,
        text=True,
    )
    assert told.stdout.startswith(str(built))


@pytest.mark.slow
def test_a_project_installed_beside_a_wheel(here: Path, wheel: Any, built: Path) -> None:
    assert wheel("gansuite", "init", "mine").returncode == 0
    pip = ["pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    done = wheel(*pip, "--target", "site", "./mine")
    assert done.returncode == 0, done.stderr
    site = str(here / "site")
    done = wheel("gansuite", "list", path=site, cwd=here / "mine")
    for line in (r"  mygan +A generator and", "  my_photos  ", "  mygan_coats  "):
        assert re.search(f"\n{line}", done.stdout), line
    done = wheel("pytest", "-q", "-p", "no:cacheprovider", path=site, cwd=here / "mine")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.slow
def test_an_editable_install_holds_no_copy_of_the_experiments(here: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    options = ["--no-build-isolation", "--target", str(here / "site"), "-e", str(ROOT)]
    done = subprocess.run([*pip, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (link,) = (here / "site").glob("*gansuite*.pth")
    assert link.read_text().strip() == str(ROOT)
    assert not list((here / "site").rglob("*.yaml"))
