"""What a style method keeps of the content and reaches of the style, at several strengths.

    python benchmarks/style.py runs/adain_coats/seed0 [pictures] [key=value ...]

On the test pictures of the run's data, each in the style of one test picture of the other domain.
A method without references has one row.
"""

from __future__ import annotations

import sys

import torch

from gansuite import engine
from gansuite.config import Experiment
from gansuite.evaluation.comparison import to_uint8
from gansuite.evaluation.features import RandomVGG16
from gansuite.evaluation.style import style_rows
from gansuite.runs import read_checkpoint

path, *rest = sys.argv[1:]
count = int(rest[0]) if rest else 64
method = engine.load_method(path)
data = engine.build_data(Experiment.model_validate(read_checkpoint(path)["experiment"]))
(target,) = method.targets
(origin,) = set(method.spec.domains) - {target}
source, style = data.pictures("test", origin, count), data.pictures("test", target, 2 * count)
style = style[count:] if len(style) > count else style  # of other scenes, where both show the same
x, network = method.scaled(source), RandomVGG16()
rows = {}
with torch.no_grad():
    for strength in (0.0, 0.5, 1.0) if method.by_reference else (1.0,):
        if method.by_reference:
            reference = method.scaled(style[torch.arange(len(x)) % len(style)])
            made = method.stylize(x, [(reference, 1.0)], strength)
        else:
            made = method.translate(x, target)
        found = style_rows(source, to_uint8(made), style, network)
        rows[f"strength {strength:g}"] = found.pop("made")
        rows.update(found)
truth = data.truth(origin, target, count)
if truth is not None:
    rows["the true stylisation"] = style_rows(source, truth, style, network)["made"]
print(f"{'':22}content kept  style reached")
for name, scores in rows.items():
    print(f"{name:22}{scores['content_kept']:12.3f}{scores['style_reached']:15.4f}")
