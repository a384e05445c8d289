"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193) and CLIP's picture side (Radford et al. 2021,
arXiv:2103.00020), from local safetensors files of the Hugging Face layout.

The networks are transformers' own; nothing is downloaded here, the size of the network is read from
the file, and the hash of the file is in the protocol.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gansuite.errors import UserError
from gansuite.evaluation.comparison import check_images, rgb
from gansuite.evaluation.features import CHUNK, Frozen, exact


class VisionTransformer(Frozen):
    """uint8 [N, 1 or 3, H, W] -> float64 [N, dim] on the CPU.

    Pictures are resized to ``side`` squared (bicubic, antialiased, the aspect is not kept). ``id``
    names the network and the sha256 of its file. UserError when transformers is not installed or
    the file is missing or holds another network.
    """

    option: ClassVar[str]
    what: ClassVar[str]
    where: ClassVar[str]  # a file that fits
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]
    side: int
    dim: int

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.check(weights)
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from transformers.utils import logging as transformers_logging

        try:
            transformers_logging.disable_progress_bar()
            state = load_file(weights)
            model, config = self.build(state)
            self.network, told = model.from_pretrained(
                None, config=config, state_dict=state, output_loading_info=True
            )
        except (SafetensorError, KeyError, IndexError, RuntimeError, ValueError) as error:
            raise self._other(weights) from error
        if told["missing_keys"] or told.get("mismatched_keys"):
            raise self._other(weights)
        self.id = f"{self.option}-{self.dim}d-{self.side}px-{_sha256(weights)[:12]}"
        self.freeze()

    @classmethod
    def check(cls, path: Path) -> None:
        """UserError unless transformers and the file are there; costs nothing."""
        import importlib.util

        way_out = f"or leave evaluate.{cls.option} empty"
        for package in ("transformers", "safetensors"):
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"evaluate.{cls.option} needs the package {package}: pip install "
                    f"'gansuite[vit]', {way_out}"
                )
        if not path.is_file():
            raise UserError(
                f"evaluate.{cls.option}: there is no file '{path}'; put {cls.where}"
                f" there, {way_out}"
            )

    def _other(self, path: Path) -> UserError:
        return UserError(f"'{path}' does not hold {self.what}; put {self.where} there")

    def build(self, state: dict[str, Tensor]) -> tuple[Any, Any]:
        """transformers' class and the configuration that the shapes in ``state`` belong to."""
        raise NotImplementedError

    def look(self, x: Tensor) -> Tensor:
        """float [N, 3, side, side], normalised -> [N, dim]."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        check_images(images)
        device, parts = self.device(), []
        mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (self.mean, self.std))
        with exact(device):
            for chunk in images.split(CHUNK):
                x = rgb(chunk).to(device).float()
                x = F.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True)
                x = (x.round().clamp(0, 255) / 255 - mean) / std
                parts.append(self.look(x).double().cpu())
        return torch.cat(parts)


class Dino(VisionTransformer):
    """DINOv2's class token after the last norm, of pictures of 224 pixels (Stein et al. 2023,
    arXiv:2306.04675, on Fréchet distances with it)."""

    option = "dino"
    what = "a DINOv2 network"
    where = "model.safetensors of huggingface.co/facebook/dinov2-base (or -small, -large)"
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    side = 224

    def build(self, state: dict[str, Tensor]) -> tuple[Any, Any]:
        from transformers import Dinov2Config, Dinov2Model

        width, _, patch, _ = _of(state, "embeddings.patch_embeddings.projection.weight").shape
        grid = round((_of(state, "embeddings.position_embeddings").shape[1] - 1) ** 0.5)
        fc1 = [v for k, v in state.items() if k.endswith("layer.0.mlp.fc1.weight")]
        config = Dinov2Config(
            hidden_size=width,
            num_hidden_layers=_layers(state, ".layer."),
            num_attention_heads=max(1, width // 64),
            patch_size=patch,
            image_size=grid * patch,
            use_swiglu_ffn=not fc1,
            mlp_ratio=fc1[0].shape[0] // width if fc1 else 4,
        )
        self.dim = width
        return Dinov2Model, config

    def look(self, x: Tensor) -> Tensor:
        seen: Tensor = self.network(pixel_values=x).last_hidden_state[:, 0]
        return seen


class Clip(VisionTransformer):
    """CLIP's projected picture embedding, at the size the network was trained on (CMMD: Jayasumana
    et al. 2024, ViT-L/14 at 336)."""

    option = "clip"
    what = "a CLIP network"
    where = "model.safetensors of huggingface.co/openai/clip-vit-large-patch14-336"
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)

    def build(self, state: dict[str, Tensor]) -> tuple[Any, Any]:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        for key in [k for k in state if not k.startswith(("vision_model.", "visual_projection."))]:
            del state[key]  # the side that reads
        width, _, patch, _ = _of(state, "embeddings.patch_embedding.weight").shape
        cells = _of(state, "embeddings.position_embedding.weight").shape[0] - 1
        self.side = round(cells**0.5) * patch
        self.dim = _of(state, "visual_projection.weight").shape[0]
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=_of(state, "layers.0.mlp.fc1.weight").shape[0],
            num_hidden_layers=_layers(state, ".layers."),
            num_attention_heads=max(1, width // 64),
            patch_size=patch,
            image_size=self.side,
            projection_dim=self.dim,
        )
        return CLIPVisionModelWithProjection, config

    def look(self, x: Tensor) -> Tensor:
        seen: Tensor = self.network(pixel_values=x).image_embeds
        return seen


def _of(state: dict[str, Tensor], end: str) -> Tensor:
    """The one weight whose name ends so; KeyError without."""
    for key, value in state.items():
        if key.endswith(end):
            return value
    raise KeyError(end)


def _layers(state: dict[str, Tensor], before: str) -> int:
    """How many numbers follow ``before`` in the names."""
    return len({k.split(before)[1].split(".")[0] for k in state if before in k})


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
