"""The page: what follows what a user does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pointcluster.app.desk import Answer, Desk
from pointcluster.app.examples import example_pictures, example_scans
from pointcluster.app.offered import offered_networks
from pointcluster.app.parts import lay_out
from pointcluster.app.style import CLICKS, DOWNLOAD
from pointcluster.app.view import View, first_view

if TYPE_CHECKING:
    from gradio import Blocks

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
    saved = listen(parts["download"].click, answered(desk.save), "format",
                   outputs=[parts["file"], parts["shown"]],
                   show_progress_on=parts["download"])  # fmt: skip
    saved.success(None, js=DOWNLOAD)
