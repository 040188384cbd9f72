"""The page: what stands where, and what follows what a user does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pointcluster.app.checkpoint import offered_networks
from pointcluster.app.desk import ASIDES, Answer, Desk, User
from pointcluster.app.session import View, first_view
from pointcluster.app.source import KINDS, Source, examples, thumbnail
from pointcluster.app.style import CLICKS, DOWNLOAD
from pointcluster.transforms.clouds import AXES

if TYPE_CHECKING:
    from gradio import Blocks

_HEADING = """# pointcluster
A picture and a 3D scan are both a set of points, and one operator gathers both into clusters. Open
one and see what a network makes of it."""
_OWN = "Read as data, never executed, and seen by you alone."
_KEPT = 3600  # seconds that gradio's copies of uploads and downloads are kept
_EXPECTED = (ImportError, MemoryError, OSError, RuntimeError, ValueError)


def build_app(
    checkpoints: Sequence[str | os.PathLike[str]] = (),
    *,
    max_bytes: int = 64_000_000,
    at_once: int = 2,
) -> Blocks:
    """The page as gradio's Blocks; :func:`serve` puts it on the network.

    Args:
        checkpoints: Networks beside those that come with the package.
        max_bytes: The largest upload.
        at_once: Requests that are worked on at the same time; the others wait in a queue.

    Raises:
        ImportError: gradio or plotly is not installed.
        OSError, ValueError: A checkpoint cannot be read.
    """
    try:
        import gradio as gr
        import plotly  # noqa: F401
    except ImportError as error:
        name = error.name or "gradio"
        raise ImportError(f"the demo needs {name}: pip install 'pointcluster[app]'") from error
    there = examples()
    desk = Desk(offered_networks(checkpoints), there, update=gr.update, tell=gr.Warning)
    start = {}
    if desk.first is not None:
        start = desk.whole(desk.first, first_view(desk.first.network))
        del start["shown"]  # it is every user's own
    with gr.Blocks(title="pointcluster", analytics_enabled=False, delete_cache=(300, _KEPT)) as app:
        parts = _lay_out(gr, list(desk.offered), there, start, max_bytes)
        _connect(gr, desk, parts, app)
    app.queue(max_size=64, default_concurrency_limit=at_once, api_open=False)
    return app


def _lay_out(
    gr: Any,
    titles: Sequence[str],
    there: Mapping[str, Sequence[Source]],
    start: Answer,
    max_bytes: int,
) -> dict[str, Any]:
    """Put the parts on the page: gradio's components, by their names, which are their `elem_id`.

    Args:
        gr: gradio.
        titles: Of the networks to choose from.
        there: What there is to choose without an upload, by kinds.
        start: What is on the page at first; whole updates or values, by the parts' names.
        max_bytes: The largest upload.
    """
    parts = {"shown": gr.State(), "own": gr.State({}), "listed": gr.State(start.get("listed"))}

    def put(kind: Any, name: str, **options: Any) -> Any:
        """A component, as it is at first."""
        given = start.get(name)
        if isinstance(given, dict) and "__type__" in given:
            options |= {key: value for key, value in given.items() if key != "__type__"}
        elif name in start:
            options["value"] = given
        parts[name] = kind(elem_id=name, **options)
        return parts[name]

    def choose(name: str, label: str) -> None:
        put(gr.Dropdown, name, choices=[], label=label, min_width=90)

    def figure(side: str) -> None:
        with put(gr.Column, f"column_{side}", visible=side == "a", min_width=320):
            with put(gr.Row, f"colours_{side}"):
                choose(f"colour_{side}", "Colours say")
                with put(gr.Column, f"kinds_{side}", min_width=90):
                    choose(f"kind_{side}", "Of the class")
            with put(gr.Row, f"places_{side}"):
                for part in ("Stage", "Block", "Head"):
                    choose(f"{part.lower()}_{side}", part)
            put(gr.Plot, f"plot_{side}", show_label=False, elem_classes="plot")

    def inputs() -> None:
        put(gr.Dropdown, "network", choices=list(titles), label="Network")
        put(gr.Markdown, "about")
        label = f"Picture or scan, up to {max_bytes / 1e6:,.3g} MB"
        put(gr.File, "upload", label=label, file_types=list(KINDS), height=150)
        for kind, some in there.items():
            put(
                gr.Gallery,
                f"{kind}s",
                elem_classes="examples",
                value=[(thumbnail(each), "") for each in some],
                label=f"Or a {kind} from here",
                columns=4,
                height="auto",
                object_fit="cover",
                allow_preview=False,
                buttons=[],
                interactive=False,
            )
        with put(gr.Row, "input"):
            put(gr.Dropdown, "size", choices=[], label="Size", min_width=120)
            put(gr.Dropdown, "up", choices=list(AXES), label="Axis that points up", min_width=120)
        with gr.Accordion("Your own network", open=False, elem_id="yours"):
            label = ".safetensors with its .json, .ckpt, or .pth.tar"
            endings = [".safetensors", ".json", ".pth", ".tar", ".ckpt"]
            put(gr.File, "checkpoint", label=label, file_types=endings, file_count="multiple",
                height=150)  # fmt: skip
            gr.Markdown(_OWN)

    def below() -> None:
        with gr.Column(scale=4, min_width=260):
            put(gr.Label, "classes", num_top_classes=5)
        with gr.Column(scale=3, min_width=220):
            put(gr.Textbox, "point", value="", label="Point", placeholder="number", max_lines=1)
            for side in ASIDES:
                put(gr.Markdown, f"words_{side}", elem_classes="words")
        with gr.Column(scale=3, min_width=220):
            with put(gr.Column, "looks"):
                put(gr.Slider, "opacity", minimum=0, maximum=1, value=0.6, step=0.05,
                    label="Opacity")  # fmt: skip
                put(gr.Checkbox, "borders", value=True, label="Borders of regions", container=False)
                put(gr.Checkbox, "centers", value=True, label="Centres", container=False)
            put(gr.Dropdown, "format", choices=[], show_label=False, label="Format",
                container=False)  # fmt: skip
            put(gr.Button, "download", value="Download", variant="primary")
            put(gr.DownloadButton, "file", label="File", visible="hidden")

    gr.Markdown(_HEADING, elem_id="heading")
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            inputs()
        with gr.Column(scale=9, min_width=480):
            with gr.Row(equal_height=False):
                put(gr.Markdown, "title", value="### Open a picture or a scan")
                put(gr.Checkbox, "compare", value=False, label="Compare two figures",
                    container=False, min_width=190, scale=0)  # fmt: skip
            with gr.Row():
                for side in ASIDES:
                    figure(side)
            with gr.Row(equal_height=False):
                below()
            put(gr.Markdown, "code")
    return parts


def _connect(gr: Any, desk: Desk, parts: dict[str, Any], app: Blocks) -> None:
    """Say what follows what; every answer changes the parts that it names."""
    user = [parts[name] for name in ("shown", "title", "network", "own", *View._fields)]
    fixed = {"compare", "centers", "download", "file"}
    changed = [part for name, part in parts.items() if name not in fixed]

    def answered(answer: Callable[..., Answer]) -> Callable[..., Any]:
        """A function for gradio: takes the answer's own inputs, then the user's; kind errors."""

        def run(progress: Any = gr.Progress(), *values: Any) -> Any:  # noqa: B008
            inputs, (shown, title, network, own, *view) = values[: -len(user)], values[-len(user) :]
            try:
                shown = desk.current(shown, title)
                out = answer(User(shown, View(*view), network, own, progress), *inputs)
            except _EXPECTED as error:
                text = str(getattr(error, "strerror", None) or error)
                text = " ".join(text.split()) or "There is not enough memory for this."
                raise gr.Error(text, title="This did not work", print_exception=False) from error
            return {parts[name]: each for name, each in out.items()} or gr.skip()

        return run

    def listen(event: Any, answer: Any, *inputs: str, **options: Any) -> Any:
        """Let an event change whatever the answer names."""
        defaults = {
            "outputs": changed,
            "show_progress_on": [parts["plot_a"], parts["plot_b"]],
            "api_visibility": "private",
        }
        return event(answer, [parts[name] for name in inputs] + user, **(defaults | options))

    app.load(None, js=CLICKS)
    for name, answer in (("upload", desk.open_file), ("checkpoint", desk.open_network)):
        done = listen(parts[name].upload, answered(answer), name)
        empty = {"show_progress": "hidden", "api_visibility": "private"}
        done.failure(lambda: None, None, parts[name], **empty)
    listen(parts["network"].input, answered(desk.change_network))
    for name in ("size", "up"):
        listen(parts[name].input, answered(desk.change_input), "size", "up")
    for kind in desk.examples:
        choose = answered(lambda user, number, kind=kind: desk.choose_example(user, kind, number))

        def clicked(
            event: Any,
            progress: Any = gr.Progress(),  # noqa: B008
            *values: Any,
            choose: Any = choose,
        ) -> Any:
            return choose(progress, event.index, *values)

        clicked.__annotations__ = {"event": gr.SelectData}  # gradio goes by it
        listen(parts[f"{kind}s"].select, clicked)
    # The number of a point is also written by the script that waits for clicks.
    touched = [parts[name].input for name in View._fields if name not in ("point", "listed")]
    listen(
        partial(gr.on, [*touched, parts["point"].change]),
        answered(desk.redraw),
        trigger_mode="always_last",
        show_progress="minimal",
    )
    outputs = [parts["file"], parts["shown"]]
    save = {"outputs": outputs, "show_progress_on": parts["download"]}
    saved = listen(parts["download"].click, answered(desk.save), "format", **save)
    saved.success(None, js=DOWNLOAD)
