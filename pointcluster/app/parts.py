"""What stands where on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pointcluster.app.actions import FORMATS
from pointcluster.app.desk import ASIDES, Answer
from pointcluster.app.examples import thumbnail
from pointcluster.app.source import PICTURES, SCANS, Source
from pointcluster.transforms.clouds import AXES

_HEADING = """# pointcluster
A picture and a 3D scan are both a set of points, and one operator gathers both into clusters. Open
one and see what a network takes together."""
_OWN = "Read as data, never executed, and seen by you alone."


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
            put(gr.Dropdown, "network", choices=list(titles), label="Network")
            put(gr.Markdown, "about")
            put(
                gr.File, "upload", label=f"Picture or scan, up to {max_bytes / 1e6:,.3g} MB",
                file_types=[*PICTURES, *SCANS], height=150,
            )  # fmt: skip
            for kind, there in examples.items():
                put(
                    gr.Gallery, f"{kind}s", value=[(thumbnail(each), "") for each in there],
                    label=f"Or a {kind} from here", columns=4, height="auto",
                    object_fit="cover", allow_preview=False, buttons=[], interactive=False,
                )  # fmt: skip
            with gr.Row():
                put(gr.Dropdown, "size", choices=[], label="Size", min_width=120)
                put(
                    gr.Dropdown, "up", choices=list(AXES), label="Axis that points up",
                    min_width=120,
                )  # fmt: skip
            with gr.Accordion("Your own network", open=False, elem_id="yours"):
                put(
                    gr.File, "checkpoint", label=".safetensors with its .json, or .pth.tar",
                    file_types=[".safetensors", ".json", ".pth", ".tar", ".ckpt"],
                    file_count="multiple", height=150,
                )  # fmt: skip
                gr.Markdown(_OWN)
        with gr.Column(scale=9, min_width=480):
            with gr.Row(equal_height=True):
                put(gr.Markdown, "title", value="### Open a picture or a scan")
                put(
                    gr.Checkbox, "compare", value=False, label="Compare two blocks",
                    container=False, min_width=190, scale=0,
                )  # fmt: skip
            with gr.Row():
                for side in ASIDES:
                    seen = {"visible": side == "a"} | _plain(start.get(f"column_{side}"))
                    with gr.Column(min_width=320, elem_id=f"column_{side}", **seen) as column:
                        with gr.Row():
                            for name in ("Stage", "Block", "Head"):
                                put(
                                    gr.Dropdown, f"{name.lower()}_{side}", choices=[], label=name,
                                    min_width=90,
                                )  # fmt: skip
                        put(gr.Plot, f"plot_{side}", show_label=False, elem_classes="plot")
                    parts[f"column_{side}"] = column
            with gr.Row(equal_height=False):
                with gr.Column(scale=4, min_width=260):
                    put(
                        gr.Label, "classes", num_top_classes=5,
                        label="What the network takes it for",
                    )  # fmt: skip
                with gr.Column(scale=3, min_width=220):
                    put(
                        gr.Textbox, "point", value="", label="Point", placeholder="number",
                        max_lines=1,
                    )  # fmt: skip
                    for side in ASIDES:
                        put(gr.Markdown, f"words_{side}", elem_classes="words")
                with gr.Column(scale=3, min_width=220):
                    put(
                        gr.Slider, "opacity", minimum=0, maximum=1, value=0.6, step=0.05,
                        label="Opacity",
                    )  # fmt: skip
                    put(
                        gr.Checkbox, "borders", value=True, label="Borders of regions",
                        container=False,
                    )  # fmt: skip
                    put(gr.Checkbox, "centers", value=True, label="Centres", container=False)
                    with gr.Row(equal_height=True):
                        put(
                            gr.Dropdown, "format", choices=list(FORMATS), value=".png",
                            show_label=False, label="Format", container=False, min_width=90,
                        )  # fmt: skip
                        parts["download"] = gr.Button(
                            "Download", variant="primary", elem_id="download", min_width=110
                        )
                        put(gr.DownloadButton, "file", label="File", visible="hidden")
            put(gr.Markdown, "code")
    return parts


def _plain(update: Any) -> dict[str, Any]:
    """What an update says, without its mark."""
    return {key: each for key, each in (update or {}).items() if key != "__type__"}
