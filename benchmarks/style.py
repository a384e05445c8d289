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
from gansuite.evaluation import Comparison, Protocol, build_extractor, reference_rows
from gansuite.evaluation.comparison import to_uint8
from gansuite.evaluation.score import score
from gansuite.runs import read_checkpoint

path, *rest = sys.argv[1:]
count = int(rest[0]) if rest else 64
method = engine.load_method(path)
data = engine.build_data(Experiment.model_validate(read_checkpoint(path)["experiment"]))
(target,) = method.targets
(origin,) = set(method.spec.domains) - {target}
source, style = data.pictures("test", origin, count), data.pictures("test", target, 2 * count)
style = style[count:] if len(style) > count else style  # of other scenes, where both show the same
reference = style[torch.arange(len(source)) % len(style)] if method.by_reference else None
columns = ("content_kept", "content_distance", "style_reached", "reference_reached")
extractor = build_extractor()
protocol = Protocol.of(extractor, size=data.size, style=True, samples=count, metrics=columns)
x = method.scaled(source)
rows = {}
with torch.no_grad():
    for strength in (0.0, 0.5, 1.0) if method.by_reference else (1.0,):
        if reference is not None:
            made = method.stylize(x, [(method.scaled(reference), 1.0)], strength)
        else:
            made = method.translate(x, target)
        c = Comparison("style", style, to_uint8(made), source, reference=reference)
        rows[f"strength {strength:g}"] = score(c, protocol, extractor)
references = reference_rows(c, protocol, extractor, train=data.pictures("train", target, count))
for row in ("do_nothing", "copy_the_style"):
    rows[row] = references[row]
truth = data.truth(origin, target, count)
if truth is not None:
    true = Comparison("style", style, truth, source, reference=reference)
    rows["the true stylisation"] = score(true, protocol, extractor)
print(f"{'':22}" + "".join(f"{column.replace('_', ' '):>20}" for column in columns))
for name, scores in rows.items():
    cells = (f"{scores[m]:20.3f}" if m in scores else " " * 20 for m in columns)
    print(f"{name:22}" + "".join(cells))
