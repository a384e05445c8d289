"""How often a coat classifier, trained here on real pictures, agrees with a translator's target.

    python benchmarks/coats_agree.py RUN [--epochs 3]

RUN is a run folder or checkpoint of a translator on `coats`. Prints the classifier's accuracy on
real test pictures and, for each target domain, the share of translations it calls by that name.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansuite import engine
from gansuite.config import Experiment
from gansuite.rng import derive, torch_generator
from gansuite.runs import read_checkpoint


def classifier(domains: int) -> nn.Module:
    """Four strided convolutions and a linear layer."""
    layers: list[nn.Module] = []
    for a, b in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, domains))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    content = read_checkpoint(args.run)
    method = engine.load_method(args.run)
    data = engine.build_data(Experiment.model_validate(content["experiment"]))
    domains = method.spec.domains

    def pictures(split: str, domain: str) -> Tensor:
        return data.pictures(split, domain).float() / 127.5 - 1

    x = torch.cat([pictures("train", d) for d in domains])
    y = torch.cat([torch.full((len(data.pictures("train", d)),), i) for i, d in enumerate(domains)])
    torch.manual_seed(derive(0, "classifier"))
    net = classifier(len(domains))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for epoch in range(args.epochs):
        for part in torch.randperm(len(x), generator=torch_generator(0, "order", epoch)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[part]), y[part]).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        for i, target in enumerate(domains):
            real = (net(pictures("test", target)).argmax(1) == i).float().mean()
            hits = []
            for source in domains:
                if source != target:
                    for part in pictures("test", source).split(64):
                        hits.append(net(method.translate(part, target)).argmax(1) == i)
            agree = torch.cat(hits).float().mean()
            print(f"{target:<10} real {real:6.1%}   translated {agree:6.1%}")


if __name__ == "__main__":
    main()
