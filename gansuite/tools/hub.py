"""Model folders as `huggingface_hub` sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download

from gansuite.engine import load_method


class Pretrained(ModelHubMixin, library_name="gansuite"):
    """``Pretrained.from_pretrained("my-model")`` is the method in a model folder of `gansuite
    share`, in eval mode: a folder here, or ``owner/name`` on the hub."""

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_: Any,
    ) -> Any:
        if Path(model_id).is_dir():
            return load_method(model_id)
        return load_method(
            snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        )
