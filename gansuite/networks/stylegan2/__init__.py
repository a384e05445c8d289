"""StyleGAN2's networks in plain PyTorch: mapping, modulated synthesis, residual discriminator.

Sources: Karras et al. 2019 (StyleGAN: mapping, noise, mixing, truncation), Karras et al. 2020a
(StyleGAN2: weight demodulation, skip generator, residual discriminator, projection) and 2020b
(the channel and layer counts). Images are float [N, C, size, size], nominally in [-1, 1]; the
generator has no output activation, so a picture may leave that range.

Everything can be differentiated twice (R1, path length). Three rewrites keep the function and save
time: modulation scales activations instead of building one weight per sample; resampling is one
depthwise convolution with its own stride and padding; the gain sqrt(2) of the activation is folded
into what precedes it, because ``lrelu(g v) = g lrelu(v)`` for g > 0.

Random numbers come only from the `Draws` handed in.
"""

from gansuite.networks.stylegan2.discriminator import StyleDiscriminator
from gansuite.networks.stylegan2.generator import PRESETS, StyleGenerator, mixing_cutoff
from gansuite.networks.stylegan2.latent import descend, interpolate, project, style_mixing_grid

__all__ = [
    "PRESETS",
    "StyleDiscriminator",
    "StyleGenerator",
    "descend",
    "interpolate",
    "mixing_cutoff",
    "project",
    "style_mixing_grid",
]
