"""gansuite: GAN families compared on equal terms, and each for anybody's Trainer.

import lightning as L, gansuite

data = gansuite.DataModule.of("coats", size=64, batch=4, method=gansuite.CycleGAN)
trainer = L.Trainer(max_steps=1000, callbacks=[gansuite.Evaluate()])
trainer.fit(gansuite.CycleGAN(data.spec), data)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gansuite.lazy import attributes

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gansuite import losses, networks
    from gansuite.callbacks.scores import Evaluate
    from gansuite.config import Budget, Ema, Optim
    from gansuite.core.settings import Settings
    from gansuite.core.step import Step
    from gansuite.data.module import DataModule
    from gansuite.data.spec import Batch, DataSpec, Needs
    from gansuite.errors import NotFinite, UserError
    from gansuite.evaluation import metrics
    from gansuite.evaluation.evaluator import Evaluator
    from gansuite.methods.adain import AdaIN
    from gansuite.methods.base import Method, terms
    from gansuite.methods.cartoongan import CartoonGAN
    from gansuite.methods.cut import CUT
    from gansuite.methods.cyclegan import CycleGAN
    from gansuite.methods.discogan import DiscoGAN
    from gansuite.methods.dualgan import DualGAN
    from gansuite.methods.pix2pix import Pix2Pix
    from gansuite.methods.r3gan import R3GAN
    from gansuite.methods.stargan import StarGAN
    from gansuite.methods.stylegan import StyleGAN
    from gansuite.methods.vanilla import VanillaGAN
else:  # nothing is imported (PyTorch takes seconds) before it is asked for
    __getattr__ = attributes(
        __name__,
        {
            "Evaluate": "callbacks.scores",
            "Evaluator": "evaluation.evaluator",
            "Budget": "config",
            "Ema": "config",
            "Optim": "config",
            "Settings": "core.settings",
            "Step": "core.step",
            "DataModule": "data.module",
            "Batch": "data.spec",
            "DataSpec": "data.spec",
            "Needs": "data.spec",
            "NotFinite": "errors",
            "UserError": "errors",
            "Method": "methods.base",
            "terms": "methods.base",
            "CycleGAN": "methods.cyclegan",
            "DiscoGAN": "methods.discogan",
            "DualGAN": "methods.dualgan",
            "StarGAN": "methods.stargan",
            "StyleGAN": "methods.stylegan",
            "AdaIN": "methods.adain",
            "CUT": "methods.cut",
            "CartoonGAN": "methods.cartoongan",
            "Pix2Pix": "methods.pix2pix",
            "R3GAN": "methods.r3gan",
            "VanillaGAN": "methods.vanilla",
            "losses": "losses",
            "metrics": "evaluation.metrics",
            "networks": "networks",
        },
    )


__all__ = [
    "CUT",
    "R3GAN",
    "AdaIN",
    "Batch",
    "Budget",
    "CartoonGAN",
    "CycleGAN",
    "DataModule",
    "DataSpec",
    "DiscoGAN",
    "DualGAN",
    "Ema",
    "Evaluate",
    "Evaluator",
    "Method",
    "Needs",
    "NotFinite",
    "Optim",
    "Pix2Pix",
    "Settings",
    "StarGAN",
    "Step",
    "StyleGAN",
    "UserError",
    "VanillaGAN",
    "__version__",
    "losses",
    "metrics",
    "networks",
    "terms",
]


def __dir__() -> list[str]:
    return sorted(__all__)
