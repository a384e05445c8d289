"""Losses as pure functions: adversarial, reconstruction, penalties, perceptual, PatchNCE, path
length. Each module has what it names."""
