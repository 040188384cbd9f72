"""The page: what stands where, and what follows what a user does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pointcluster.app.checkpoint import offered_networks
from pointcluster.app.desk import ASIDES, Answer, Desk
from pointcluster.app.figures import FORMATS
from pointcluster.app.session import View, first_view
from pointcluster.app.source import (
    PICTURES,
    SCANS,
    Source,
    example_pictures,
    example_scans,
    thumbnail,
)
from pointcluster.app.style import CLICKS, DOWNLOAD
from pointcluster.transforms.clouds import AXES

if TYPE_CHECKING:
    from gradio import Blocks

_HEADING = """# pointcluster
A picture and a 3D scan are both a set of points, and one operator gathers both into clusters. Open
one and see what a network takes together."""
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
    examples = {"scan": example_scans(), "picture": example_pictures()}
    desk = Desk(
        offered_networks(checkpoints),
        examples,
        max_bytes=max_bytes,
        update=gr.update,
        tell=gr.Warning,
    )
    start = {}
    if desk.first is not None:
        start = desk.whole(desk.first, first_view(desk.first.network))
        del start["shown"]  # it is every user's own
    with gr.Blocks(title="pointcluster", analytics_enabled=False, delete_cache=(300, _KEPT)) as app:
        parts = lay_out(list(desk.offered), examples, start, max_bytes)
        _connect(gr, desk, parts, app)
    app.queue(max_size=64, default_concurrency_limit=at_once, api_open=False)
    return app


def lay_out(
    titles: Sequence[str],
    examples: Mapping[str, Sequence[Source]],
    start: Answer,
    max_bytes: int,
) -> dict[str, Any]:
    """Put the parts on the page, inside gradio's Blocks.

    Args:
        titles: Of the networks to choose from.
        examples: Pictures and scans to choose, by their kind.
        start: What is on the page at first; whole updates or values, by the parts' names.
        max_bytes: The largest upload.

    Returns:
        Gradio's components, by their names, which are also their `elem_id`.
    """
    import gradio as gr

    parts: dict[str, Any] = {
        "shown": gr.State(None),
        "own": gr.State({}),
        "listed": gr.State(start.get("listed")),
    }

    def put(kind: Any, name: str, **options: Any) -> None:
        """A component, as it is at first."""
        given = start.get(name)
        if isinstance(given, dict) and given.get("__type__") == "update":
            options |= _plain(given)
        elif name in start:
            options["value"] = given
        parts[name] = kind(elem_id=name, **options)

    gr.Markdown(_HEADING, elem_id="heading")
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            _lay_out_inputs(gr, put, titles, examples, max_bytes)
        with gr.Column(scale=9, min_width=480):
            parts |= _lay_out_clusters(gr, put, start)
            with gr.Row(equal_height=False):
                _lay_out_words_and_looks(gr, put)
            put(gr.Markdown, "code")
    return parts


def _lay_out_inputs(
    gr: Any,
    put: Callable[..., None],
    titles: Sequence[str],
    examples: Mapping[str, Sequence[Source]],
    max_bytes: int,
) -> None:
    """What is looked at, and by which network."""
    put(gr.Dropdown, "network", choices=list(titles), label="Network")
    put(gr.Markdown, "about")
    put(
        gr.File,
        "upload",
        label=f"Picture or scan, up to {max_bytes / 1e6:,.3g} MB",
        file_types=[*PICTURES, *SCANS],
        height=150,
    )
    for kind, there in examples.items():
        put(
            gr.Gallery,
            f"{kind}s",
            value=[(thumbnail(each), "") for each in there],
            label=f"Or a {kind} from here",
            columns=4,
            height="auto",
            object_fit="cover",
            allow_preview=False,
            buttons=[],
            interactive=False,
        )
    with gr.Row():
        put(gr.Dropdown, "size", choices=[], label="Size", min_width=120)
        put(
            gr.Dropdown,
            "up",
            choices=list(AXES),
            label="Axis that points up",
            min_width=120,
        )
    with gr.Accordion("Your own network", open=False, elem_id="yours"):
        put(
            gr.File,
            "checkpoint",
            label=".safetensors with its .json, or .pth.tar",
            file_types=[".safetensors", ".json", ".pth", ".tar", ".ckpt"],
            file_count="multiple",
            height=150,
        )
        gr.Markdown(_OWN)


def _lay_out_clusters(gr: Any, put: Callable[..., None], start: Answer) -> dict[str, Any]:
    """The clusters of one block, and of another beside it; the columns that they stand in."""
    columns = {}
    with gr.Row(equal_height=True):
        put(gr.Markdown, "title", value="### Open a picture or a scan")
        put(
            gr.Checkbox,
            "compare",
            value=False,
            label="Compare two blocks",
            container=False,
            min_width=190,
            scale=0,
        )
    with gr.Row():
        for side in ASIDES:
            seen = {"visible": side == "a"} | _plain(start.get(f"column_{side}"))
            with gr.Column(min_width=320, elem_id=f"column_{side}", **seen) as column:
                with gr.Row():
                    for name in ("Stage", "Block", "Head"):
                        put(
                            gr.Dropdown,
                            f"{name.lower()}_{side}",
                            choices=[],
                            label=name,
                            min_width=90,
                        )
                put(gr.Plot, f"plot_{side}", show_label=False, elem_classes="plot")
            columns[f"column_{side}"] = column
    return columns


def _lay_out_words_and_looks(gr: Any, put: Callable[..., None]) -> None:
    """What the network says, what there is to say of a point, how the clusters look, downloads."""
    with gr.Column(scale=4, min_width=260):
        put(
            gr.Label,
            "classes",
            num_top_classes=5,
            label="What the network takes it for",
        )
    with gr.Column(scale=3, min_width=220):
        put(
            gr.Textbox,
            "point",
            value="",
            label="Point",
            placeholder="number",
            max_lines=1,
        )
        for side in ASIDES:
            put(gr.Markdown, f"words_{side}", elem_classes="words")
    with gr.Column(scale=3, min_width=220):
        put(
            gr.Slider,
            "opacity",
            minimum=0,
            maximum=1,
            value=0.6,
            step=0.05,
            label="Opacity",
        )
        put(
            gr.Checkbox,
            "borders",
            value=True,
            label="Borders of regions",
            container=False,
        )
        put(gr.Checkbox, "centers", value=True, label="Centres", container=False)
        with gr.Row(equal_height=True):
            put(
                gr.Dropdown,
                "format",
                choices=list(FORMATS),
                value=".png",
                show_label=False,
                label="Format",
                container=False,
                min_width=90,
            )
            put(gr.Button, "download", value="Download", variant="primary", min_width=110)
            put(gr.DownloadButton, "file", label="File", visible="hidden")


def _plain(update: Any) -> dict[str, Any]:
    """What an update says, without its mark."""
    return {key: each for key, each in (update or {}).items() if key != "__type__"}


def _connect(gr: Any, desk: Desk, parts: dict[str, Any], app: Blocks) -> None:
    """Say what follows what; every answer changes the parts that it names."""
    view = [parts[name] for name in View._fields]
    user = [parts["shown"], parts["title"], *view]
    fixed = {"compare", "centers", "format", "download", "file"}
    changed = [part for name, part in parts.items() if name not in fixed]

    def answered(answer: Callable[..., Answer]) -> Callable[..., Any]:
        """A function for gradio: takes the answer's own inputs, then the user's; kind errors."""

        def run(progress: Any = gr.Progress(), *values: Any) -> Any:  # noqa: B008
            own, (shown, title, *chosen) = values[: -len(user)], values[-len(user) :]
            try:
                out = answer(*own, desk.current(shown, title), View(*chosen), progress)
            except _EXPECTED as error:
                text = " ".join(str(error).split()) or "There is not enough memory for this."
                raise gr.Error(text, title="This did not work", print_exception=False) from error
            return {parts[name]: each for name, each in out.items()} or gr.skip()

        return run

    def listen(event: Any, answer: Any, *inputs: str, **options: Any) -> Any:
        """Let an event change whatever the answer names."""
        own = [parts[name] for name in inputs]
        defaults = {
            "outputs": changed,
            "show_progress_on": [parts["plot_a"], parts["plot_b"]],
            "api_visibility": "private",
        }
        return event(answer, own + user, **(defaults | options))

    app.load(None, js=CLICKS)
    for name, answer, inputs in (
        ("upload", desk.open_file, ("upload", "network", "own")),
        ("checkpoint", desk.open_network, ("checkpoint", "own")),
    ):
        box = parts[name]
        done = listen(box.upload, answered(answer), *inputs)
        done.failure(lambda: None, None, box, show_progress="hidden", api_visibility="private")
    listen(parts["network"].input, answered(desk.change_network), "network", "own")
    for name in ("size", "up"):
        listen(parts[name].input, answered(desk.change_input), "size", "up")
    for kind in desk.examples:
        choose = answered(partial(desk.choose_example, kind))

        def clicked(
            event: Any,
            progress: Any = gr.Progress(),  # noqa: B008
            *values: Any,
            choose: Any = choose,
        ) -> Any:
            return choose(progress, event.index, *values)

        clicked.__annotations__ = {"event": gr.SelectData}  # gradio goes by it
        listen(parts[f"{kind}s"].select, clicked, "network", "own")
    # The number of a point is also written by the script that waits for clicks.
    touched = [parts[name].input for name in View._fields if name not in ("point", "listed")]
    listen(
        partial(gr.on, [*touched, parts["point"].change]),
        answered(desk.redraw),
        trigger_mode="always_last",
        show_progress="minimal",
    )
    saved = listen(
        parts["download"].click,
        answered(desk.save),
        "format",
        outputs=[parts["file"], parts["shown"]],
        show_progress_on=parts["download"],
    )
    saved.success(None, js=DOWNLOAD)
