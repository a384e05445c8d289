"""`gansuite demo`: a page on this machine in which pictures go through every model given."""

from __future__ import annotations

import functools
import html
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from gansuite.errors import UserError
from gansuite.imaging import Picture, picture_image, read_picture, save_picture
from gansuite.tools.models import load_model
from gansuite.tools.showing import Made, bounded, names_of, sampled, translated, truncates
from gansuite.tools.style import Style, read_style

HOST, PORT = "127.0.0.1", 7860
_SIZES = ["as trained", "its own"]
QUIET = {  # before gradio is imported
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_NODE_PATH": "",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True)
class Shown:
    """A model with the name it is shown under."""

    name: str
    model: Any

    @property
    def heading(self) -> str:
        """HTML."""
        name, method = (html.escape(text) for text in (self.name, self.model.title))
        return f"<h2>{name} <small>{method}</small></h2>"


def models(
    paths: Sequence[str], weights: str = "auto", device: torch.device | str = "cpu"
) -> list[Shown]:
    """The models in ``paths``, each once.

    Raises:
        UserError: as `load_model`, or one with pictures of other than 1 or 3 channels.
    """
    found = []
    paths = list(dict.fromkeys(str(path) for path in paths))
    for name, path in zip(names_of(paths), paths, strict=True):
        model = load_model(path, weights)
        if model.spec.channels not in (1, 3):
            raise UserError(
                f"'{path}' has pictures of {model.spec.channels} channels, which a page cannot "
                f"show; 'gansuite translate' takes them."
            )
        if isinstance(model, torch.nn.Module):
            model.to(device)
        found.append(Shown(name, model))
    return found


def check_port(port: int) -> None:
    """Raise `UserError` unless ``port`` is one, and free."""
    if not 1 <= port <= 65535:
        raise UserError(f"--port is {port}; it is a number from 1 to 65535.")
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError as error:
            other = port + 1 if port < 65535 else port - 1
            raise UserError(
                f"Port {port} is not to be had ({error.strerror}); give another, such as "
                f"--port {other}."
            ) from None


def import_gradio(folder: Path) -> Any:
    """gradio, told before to send nothing to anybody and to keep its files in ``folder``.

    Raises:
        UserError: it is not installed.
    """
    os.environ.update({**QUIET, "GRADIO_TEMP_DIR": str(folder)})
    for name in ("NO_PROXY", "no_proxy"):  # it asks its own server whether it is up
        os.environ[name] = ",".join(filter(None, [os.environ.get(name, ""), HOST]))
    try:
        import gradio
    except ImportError:
        raise UserError(
            "The demo needs the package gradio: pip install 'gansuite[demo]'."
        ) from None
    return gradio


def demo(
    paths: Sequence[str],
    *,
    port: int = PORT,
    weights: str = "auto",
    device: torch.device | str = "cpu",
    note: Callable[[str], None] = lambda line: None,
) -> None:
    """Show the models in ``paths`` at 127.0.0.1 until Ctrl-C or SIGTERM; ``note`` gets the address.

    ``paths``: whatever `load_model` takes. What is uploaded and made lies in a folder of its own
    that goes with it.

    Raises:
        UserError: as `check_port`, `import_gradio` and `models`.
    """
    check_port(port)
    with tempfile.TemporaryDirectory(prefix="gansuite-demo-", ignore_cleanup_errors=True) as folder:
        gr = import_gradio(Path(folder))
        shown = models(paths, weights, device)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        page = build(gr, shown, Path(folder))
        try:
            page.launch(
                server_name=HOST,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                pwa=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                max_file_size="500mb",
                css=files("gansuite.tools").joinpath("demo.css").read_text("utf-8"),
                theme=gr.themes.Default(
                    primary_hue="blue",
                    font=["system-ui", "sans-serif"],
                    font_mono=["ui-monospace", "monospace"],
                ),
            )
            note(f"http://{HOST}:{port} shows {len(shown)} model(s); Ctrl-C ends it.")
            while True:  # shortly: a signal may reach another thread, which does not wake this one
                time.sleep(0.5)
        except KeyboardInterrupt:
            page.close(verbose=False)


def build(gr: Any, shown: Sequence[Shown], folder: Path) -> Any:
    """The page as gradio blocks; pictures are written to ``folder``."""
    translators = [one for one in shown if one.model.task == "translate"]
    generators = [one for one in shown if one.model.task == "generate"]
    with gr.Blocks(title="gansuite demo", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            "<h1>gansuite demo</h1><p>All of it runs on this machine; no picture leaves it.</p>",
            elem_id="head",
            padding=False,
        )
        if translators and generators:
            with gr.Tab("Translate"):
                _translate(gr, translators, folder)
            with gr.Tab("Generate"):
                _generate(gr, page, generators, folder)
        elif translators:
            _translate(gr, translators, folder)
        else:
            _generate(gr, page, generators, folder)
    return page


def _card(gr: Any, one: Shown, number: int) -> tuple[Any, Any]:
    """Where the picture of a model goes, and what is said of it."""
    gr.HTML(one.heading, padding=False)
    picture = gr.Image(
        label=one.name, show_label=False, interactive=False, elem_classes="made",
        elem_id=f"made{number}",
        buttons=["download", "fullscreen"], format="png",
    )  # fmt: skip
    return picture, gr.HTML(
        elem_classes="said", elem_id=f"said{number}", min_height=24, padding=False
    )


def _translate(gr: Any, shown: Sequence[Shown], folder: Path) -> None:
    styles = [one for one in shown if one.model.by_reference]
    source, style = gr.State(None), gr.State(None)
    with gr.Row(elem_id="given"):
        picture = _input(gr, "Picture", "source")
        reference = _input(gr, "Style", "style") if styles else None
        with gr.Column(min_width=240, elem_id="how"):
            size = gr.Radio(_SIZES, value=_SIZES[0], label="Size to work at")
            strength = gr.Slider(
                0, 1, 1, step=0.05, label="Strength of the style", visible=bool(styles)
            )
            colours = gr.Checkbox(label="Keep the picture's colours", visible=bool(styles))
    alert = gr.HTML(elem_id="alert", visible=False, padding=False)
    # a picture is read once, and what is wrong with it said once
    for given, kept in ((picture, source), (reference, style)):
        if given is not None:
            given.preprocess = _uploaded
            given.change(
                functools.partial(_checked, gr), given, [alert, kept], show_progress="hidden"
            )
    with gr.Row(elem_classes="cards"):
        for number, one in enumerate(shown):
            with gr.Column(min_width=260, elem_classes="card"):
                made, said = _card(gr, one, number)
                several = len(one.model.targets) > 1 and not one.model.by_reference
                to = gr.Radio(
                    list(one.model.targets), value=one.model.targets[-1], label="To",
                    visible=several, elem_classes="to",
                )  # fmt: skip
            asked = [source, style, size, to, strength, colours]
            gr.on(
                [source.change, size.change, to.change]
                + ([style.change, strength.change, colours.change] if one in styles else []),
                functools.partial(_translation, one, folder),
                asked,
                [made, said],
                concurrency_id="models",
                concurrency_limit=1,
                trigger_mode="always_last",
                show_progress_on=made,
            )


def _input(gr: Any, label: str, name: str) -> Any:
    return gr.Image(
        label=label, type="filepath", image_mode=None, elem_id=name, height=320,
        sources=["upload", "webcam", "clipboard"], buttons=[],
    )  # fmt: skip


def _uploaded(payload: Any) -> str | None:
    """The file that was uploaded, as it is, in place of gradio's way of opening it."""
    return payload.path if payload is not None else None


def _checked(gr: Any, path: str | None) -> tuple[Any, str | None]:
    """What is said of the file, and the file if it is a picture."""
    try:
        if path is not None:
            _read(path)
    except UserError as error:
        return gr.HTML(_alert(_named(str(error), path)), visible=True), None
    return gr.HTML("", visible=False), path


@functools.lru_cache(maxsize=2)
def _read(path: str) -> Picture:
    return bounded(read_picture(Path(path)))


def _named(text: str, path: str | None) -> str:
    """``text`` with the file's name in place of where it lies."""
    return text if path is None else text.replace(str(path), Path(path).name)


def _alert(text: str) -> str:
    return f'<p role="alert">{html.escape(text)}</p>'


def _translation(
    one: Shown,
    folder: Path,
    source: str | None,
    style: str | None,
    size: str,
    to: str,
    strength: float,
    colours: bool,
) -> tuple[str | None, str]:
    if source is None:
        return None, ""
    if one.model.by_reference and style is None:
        return None, "<p>Give it a picture of the style.</p>"
    try:
        target: str | Style = to
        if one.model.by_reference:
            found = read_style([str(style)], one.model, strength=strength, keep_colours=colours)
            assert found is not None
            target = found
        made = translated(
            one.model,
            _read(source),
            target,
            as_trained=size == _SIZES[0],
            name=Path(source).name,
        )
        return _written(made, folder, f"{Path(source).stem}_{one.name}")
    except UserError as error:
        return None, _alert(_named(_named(str(error), source), style))


def _generate(gr: Any, page: Any, shown: Sequence[Shown], folder: Path) -> None:
    walks = any(hasattr(one.model, "z_from") for one in shown)
    with gr.Row(elem_id="latents"):
        with gr.Column(min_width=200):
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
            following = gr.Button("Next seed", elem_id="next")
        with gr.Column(min_width=240, visible=walks):
            towards = gr.Number(1, label="Second seed", precision=0, minimum=0, elem_id="towards")
            share = gr.Slider(0, 1, 0, step=0.05, label="From the seed to the second")
        with gr.Column(min_width=240, visible=any(truncates(one.model) for one in shown)):
            truncation = gr.Slider(
                0, 1, 1, step=0.05, label="Truncation (0: the mean picture, 1: as drawn)"
            )
    following.click(lambda n: int(n or 0) + 1, seed, seed, show_progress="hidden")
    with gr.Row(elem_classes="cards"):
        for number, one in enumerate(shown):
            with gr.Column(min_width=260, elem_classes="card"):
                made, said = _card(gr, one, 100 + number)
            gr.on(
                [page.load, seed.change, towards.change, share.change]
                + ([truncation.change] if truncates(one.model) else []),
                functools.partial(_sample, one, folder),
                [seed, towards, share, truncation],
                [made, said],
                concurrency_id="models",
                concurrency_limit=1,
                trigger_mode="always_last",
                show_progress_on=made,
            )


def _sample(
    one: Shown, folder: Path, seed: Any, towards: Any, share: float, truncation: float
) -> tuple[str | None, str]:
    try:
        made = sampled(one.model, seed, towards=towards, share=share, truncation=truncation)
        return _written(made, folder, f"seed{seed}_{one.name}")
    except UserError as error:
        return None, _alert(str(error))


def _written(made: Made, folder: Path, name: str) -> tuple[str, str]:
    """The file that a picture was written to, and what is said of it."""
    place = Path(tempfile.mkdtemp(dir=folder)) / f"{name.replace('/', '_')}.png"
    save_picture(picture_image(made.picture), place, icc=made.picture.icc)
    return str(place), f"<p>{html.escape(made.said)}</p>"
