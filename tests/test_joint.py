"""StarGAN's joint training: several label sets, of which each picture knows one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import experiment
from PIL import Image

from gansuite import engine
from gansuite.data import DataModule, DataSpec, Needs, Source, build_source
from gansuite.data.spec import LabelSet
from gansuite.errors import UserError
from gansuite.losses.reconstruction import classification
from gansuite.methods import method_class

COATS = {
    "stripes": {"name": "coats", "domains": ["horse", "zebra"], "train": 6, "test": 4},
    "spots": {"name": "coats", "domains": ["giraffe", "leopard"], "train": 10, "test": 4},
}


def module(source: Source, batch: int = 4) -> DataModule:
    needs = Needs(view="labelled", min_domains=2)
    return DataModule(source, needs, size=32, batch=batch, seed=0, flip=False)


@pytest.fixture
def mixed(tmp_path: Path) -> Source:
    """Coats in folders' manner, and a table of two attributes: red, and dark."""
    rows = ["file,red,dark"]
    for i in range(10):
        red, dark = i % 2, int(i < 5)
        colour = (200 - 100 * dark if red else 0, 60, 60)
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{red},{dark}")
    (tmp_path / "attributes.csv").write_text("\n".join(rows))
    table = {"name": "attributes", "root": str(tmp_path), "test_fraction": 0.4}
    return build_source("joint", sets={"coats": COATS["stripes"], "table": table})


def test_its_label_vector_is_all_labels_and_the_mask() -> None:
    data = module(build_source("joint", sets=COATS))
    spec = data.spec
    assert spec.labels == spec.domains == ("horse", "zebra", "giraffe", "leopard")
    assert [found.exclusive for found in spec.label_sets] == [True, True]
    assert [spec.set_of(label) for label in spec.labels] == [0, 0, 1, 1]
    assert data.label_vectors("train", "zebra")[0].tolist() == [0, 1, 0, 0, 1, 0]
    assert data.label_vectors("test", "giraffe")[0].tolist() == [0, 0, 1, 0, 0, 1]
    assert spec.counts["train"] == {"horse": 6, "zebra": 6, "giraffe": 10, "leopard": 10}
    assert DataSpec.from_dict(spec.to_dict()) == spec
    old = {k: v for k, v in spec.to_dict().items() if k != "joint"}
    assert DataSpec.from_dict(old).label_sets == (LabelSet(spec.domains, spec.labels, True),)


def test_the_sets_take_turns_and_none_of_their_pictures_is_left_out() -> None:
    data = module(build_source("joint", sets=COATS))
    seen: list[Counter[bytes]] = [Counter(), Counter()]
    for i in range(10):  # an epoch of the second set (20 pictures), almost two of the first (12)
        batch = data.train_batch(i)
        assert batch.labels is not None
        assert batch.labels[:, 4 + i % 2].tolist() == [1] * 4
        assert batch.labels[:, 5 - i % 2].tolist() == [0] * 4
        for picture, label in zip(batch.images[0], batch.labels, strict=True):
            seen[i % 2][picture.numpy().tobytes() + label.numpy().tobytes()] += 1
    assert sorted(seen[1].values()) == [1] * 20
    assert sorted(seen[0].values()) == [1] * 4 + [2] * 8
    # every picture comes with its own label
    known = {
        picture.numpy().tobytes() + vector.numpy().tobytes()
        for d in data.spec.domains
        for picture, vector in zip(
            data.pictures("train", d), data.label_vectors("train", d), strict=True
        )
    }
    assert seen[0].keys() | seen[1].keys() == known
    halves = [data.train_batch(3, rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([h.images[0] for h in halves]), data.train_batch(3).images[0])


def test_a_table_is_one_domain_named_after_its_set(mixed: Source) -> None:
    data = module(mixed)
    spec = data.spec
    assert spec.domains == ("horse", "zebra", "table")
    assert spec.labels == ("horse", "zebra", "red", "dark")
    assert [found.exclusive for found in spec.label_sets] == [True, False]
    red, pale = data.pictures("train", "red"), data.pictures("train", "not red")
    # a coat is neither red nor not red: nobody has said
    assert len(red) + len(pale) == spec.counts["train"]["table"] == 6
    assert (red[:, 0] >= 100).all()
    assert (pale[:, 0] == 0).all()
    assert len(data.pictures("train")) == 18


def test_only_the_known_part_is_classified() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 1, 1.0]])
    known = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1.0]])
    loss = classification(logits, labels.double(), [(2, True), (3, False)], known)
    first = F.cross_entropy(logits[:2, :2], torch.tensor([0, 1]), reduction="sum")
    second = F.binary_cross_entropy_with_logits(
        logits[2:, 2:], labels[2:, 2:].double(), reduction="sum"
    )
    assert torch.allclose(loss, (first + second) / 4)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[:2, 2:] == 0).all()
    assert (gradient[2:, :2] == 0).all()
    assert (gradient[:2, :2] != 0).all()


def test_the_published_joint_network_has_its_width() -> None:
    """CelebA's 5, RaFD's 8 and the mask of 2: 15 planes beside the picture; 13 logits."""
    counts = {"train": {"celeba": 1}, "test": {"celeba": 1}}
    celeba = tuple(f"attribute{i}" for i in range(5))
    rafd = tuple(f"expression{i}" for i in range(8))
    joint = (LabelSet(("celeba",), celeba, False), LabelSet(rafd, rafd, True))
    spec = DataSpec(
        "joint", 128, 3, ("celeba", *rafd), counts, False, celeba + rafd, "0", joint=joint
    )
    with torch.device("meta"):
        method = method_class("stargan")(spec)
        alone = method_class("stargan")(
            DataSpec("celeba", 128, 3, ("celeba",), counts, False, celeba, "0")
        )
    assert alone.parameter_counts() == {"g": 8_430_528, "d": 44_762_048}  # methods.md, section 13
    more = method.parameter_counts()
    assert more["g"] == 8_430_528 + 10 * 64 * 7 * 7
    assert more["d"] == 44_762_048 + 8 * 2048 * 2 * 2
    # D is on turn in every batch; G in the fifth of each set: batches 8 and 9 of ten
    assert [i for i, turn in enumerate(method.alternation) if "g" in turn] == [8, 9]
    assert len(method.alternation) == 10


def test_a_translation_carries_the_mask_of_its_set() -> None:
    spec = module(build_source("joint", sets=COATS)).spec
    method = method_class("stargan")(spec, width=4, blocks=1, d_width=4, d_layers=3)
    seen = []
    method.g.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    with torch.no_grad():
        method.translate(torch.zeros(1, 3, 32, 32), "zebra")
        method.translate(torch.zeros(1, 3, 32, 32), "leopard")
    assert [label.tolist() for label in seen] == [[[0, 1, 0, 0, 1, 0]], [[0, 0, 0, 1, 0, 1]]]


@pytest.mark.slow
def test_both_sets_train_the_generator(tmp_path: Path) -> None:
    session = engine.train(
        experiment("stargan_coats_joint", tmp_path, 6, "evaluate.every_kimg=null")
    )
    assert session.method.update_counts == {"d": 6, "g": 2}  # n_critic 3: batches 4 and 5
    assert session.notes["final"].keys() == {f"to_{d}" for d in session.data.spec.domains}


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ({"a": COATS["stripes"]}, "fewer than two sets"),
        ({"a": COATS["stripes"], "b": COATS["stripes"]}, "'horse' twice"),
        ({"a": COATS["stripes"], "b": {"name": "coat"}}, r"data\.sets\.b\.name is 'coat'.*'coats'"),
        ({"a": COATS["stripes"], "b": {"name": "joint"}}, "one of the other data sets"),
        ({"a": COATS["stripes"], "b": {}}, r"data\.sets\.b\.name is None"),
        (
            {"a": COATS["stripes"], "b": {"name": "coats", "domain": ["zebra"]}},
            r"no key 'data\.sets\.b\.domain'; did you mean 'data\.sets\.b\.domains'",
        ),
        (
            {"a": COATS["stripes"], "b": {"name": "coats", "train": "x"}},
            r"'data\.sets\.b\.train' is 'x'",
        ),
        ({"a": COATS["stripes"], "b": {"name": "folders"}}, r"'data\.sets\.b\.root' is missing"),
    ],
)
def test_a_mistake_is_one_sentence(sets: dict[str, dict[str, object]], told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        build_source("joint", sets=sets).prepare()
    assert "\n" not in str(error.value)


def test_joint_is_no_set_of_itself() -> None:
    with pytest.raises(UserError, match="one of the other data sets") as error:
        build_source("joint", sets={"a": COATS["stripes"], "b": {"name": "joint"}})
    assert "did you mean 'joint'" not in str(error.value)


def test_the_digest_is_that_of_all_sets() -> None:
    digests = set()
    for train in (6, 7):
        sets = {**COATS, "spots": {**COATS["spots"], "train": train}}
        digests.add(module(build_source("joint", sets=sets)).spec.digest)
    assert len(digests) == 2
