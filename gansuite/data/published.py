"""The published unpaired sets of the CycleGAN family: a table, read without anything heavy.

Sizes and checksums as published in TensorFlow Datasets, picture counts from its catalogue. The
sets carry no stated licence; they are for research.
"""

from __future__ import annotations

from dataclasses import dataclass

_HOSTS = (
    "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets",
    "https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets",
)


@dataclass(frozen=True)
class Archive:
    """A zip file as published: its mirrors in order of preference, bytes and SHA-256."""

    name: str
    urls: tuple[str, ...]
    size: int
    sha256: str


@dataclass(frozen=True)
class Published:
    """One set as published: archive, names of A and B, pictures in trainA trainB testA testB."""

    archive: Archive
    domains: tuple[str, str]
    counts: tuple[int, int, int, int]

    def expected(self) -> dict[str, dict[str, int]]:
        """split -> domain -> number of pictures."""
        a, b = self.domains
        n = self.counts
        return {"train": {a: n[0], b: n[1]}, "test": {a: n[2], b: n[3]}}

    @property
    def summary(self) -> str:
        """One line for ``gansuite list``."""
        a, b = self.domains
        return f"{a} and {b}, {self.archive.size / 1e6:.0f} MB, downloaded on first use"


_TABLE = """
apple2orange           apple orange      995 1019  266  248   78456409 845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8
cezanne2photo          cezanne photo     525 6287   58  751  279885071 3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff
facades                photo label       400  400  106  106   35135868 9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0
horse2zebra            horse zebra      1067 1334  120  140  116867962 a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1
iphone2dslr_flower     iphone dslr      1812 3325  569  480  339964458 8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113
maps                   satellite map    1096 1096 1098 1098 1476754427 639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e
monet2photo            monet photo      1072 6287  121  751  305231073 88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04
summer2winter_yosemite summer winter    1231  962  309  238  132640856 167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9
ukiyoe2photo           ukiyoe photo      562 6287  263  751  292946532 02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08
vangogh2photo          vangogh photo     400 6287  400  751  306590349 362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff
"""  # noqa: E501


def _published(line: str) -> Published:
    name, a, b, *numbers, sha256 = line.split()
    *counts, size = map(int, numbers)
    urls = tuple(f"{host}/{name}.zip" for host in _HOSTS)
    return Published(
        Archive(name, urls, size, sha256), (a, b), (counts[0], counts[1], counts[2], counts[3])
    )


REGISTRY: dict[str, Published] = {
    entry.archive.name: entry for entry in map(_published, _TABLE.strip().splitlines())
}
