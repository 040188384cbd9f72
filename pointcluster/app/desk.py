"""Where everything that users do on the page is answered."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pointcluster.app.checkpoint import open_checkpoint
from pointcluster.app.figures import figures, point_number, point_text, save_view
from pointcluster.app.network import Network
from pointcluster.app.session import Place, Shown, View, blocks, first_view, heads, stages
from pointcluster.app.source import Source, uploaded

HINT = "Click a point, or type its number, and its cluster stands out."
ASIDES = ("a", "b")

Answer = dict[str, Any]
"""New values of the parts of the page, by their names; gradio's updates, or values."""
Progress = Callable[[float, str], Any]


def _unseen(share: float, what: str) -> None:
    """Nobody watches."""


class Desk:
    """Answers of the page. It holds only what all users share and nobody changes; what belongs to
    one user comes as an argument and goes back in the answer.

    Args:
        offered: The networks that everyone may choose, by their titles.
        examples: Pictures and scans to choose, by their kind.
        max_bytes: The largest upload.
        update: Gradio's `update`, which changes what there is to choose.
        tell: Shows a message beside the page.
    """

    def __init__(
        self,
        offered: Mapping[str, Network],
        examples: Mapping[str, Sequence[Source]],
        *,
        max_bytes: int,
        update: Callable[..., Any],
        tell: Callable[[str], Any],
    ) -> None:
        self.offered, self.examples, self.max_bytes = offered, examples, max_bytes
        self.update, self.tell = update, tell
        self.first = self._first()

    def _first(self) -> Shown | None:
        """What is on the page before anyone did anything."""
        for network in self.offered.values():
            for source in self.examples.get(network.kind, ()):
                try:
                    return Shown(network, source)
                except ValueError:  # this network needs features that the example lacks
                    continue
        return None

    def networks(self, own: Mapping[str, Network]) -> dict[str, Network]:
        """The networks that a user may choose: theirs, then those of everyone."""
        return {**own, **self.offered}

    def current(self, shown: Shown | None, name: str) -> Shown | None:
        """What a user looks at; at first that is the first example.

        Args:
            shown: What is kept of the user.
            name: What the page says it shows.

        Raises:
            ValueError: Nothing is kept any more.
        """
        if shown is not None or self.first is None:
            return shown
        if name != heading(self.first):
            raise ValueError("this page was open for so long that it was forgotten: load it again")
        return self.first.again()

    def whole(self, shown: Shown, view: View) -> Answer:
        """The whole page for another input or network."""
        network = shown.network
        out = {
            "shown": shown,
            "network": self.update(value=network.title),
            "about": network.about,
            "size": self.update(
                choices=list(network.sizes), value=shown.size, label=network.size_label
            ),
            "up": self.update(value=shown.up or "y", visible=network.kind == "scan"),
            "title": heading(shown),
            "classes": shown.probabilities,
            "opacity": view.opacity,
            "borders": view.borders,
            "point": view.point or "",
        }
        for kind, there in self.examples.items():
            out[f"{kind}s"] = self.update(visible=kind == network.kind and len(there) > 0)
        return out | self.pictures(shown, view._replace(listed=None))

    def pictures(self, shown: Shown, view: View) -> Answer:
        """The clusters, what is said of the chosen point, and what there is to choose."""
        places = view.places(shown.network)
        both = view._replace(compare=True).places(shown.network)
        found = figures(shown, places, view)
        a, point = places[0], point_number(shown, view.point)
        out: Answer = {f"plot_{side}": figure for side, figure in zip(ASIDES, found, strict=False)}
        out["column_b"] = self.update(visible=bool(view.compare))
        out["code"] = (
            "The same in Python: "
            f"`model.clusters(data, stage={a.stage}, block={a.block}, head={a.head})`"
        )
        said = [HINT]
        if point is not None:
            said = [point_text(shown, each, point) for each in places]
        if point is not None and len(places) > 1:
            said = [f"*{place}*  \n{text}" for place, text in zip(places, said, strict=True)]
        for title, text in zip(("words_a", "words_b"), [*said, ""], strict=False):
            out[title] = text
        listed: dict[str, list[int]] = {}
        for side, place in zip(ASIDES, both, strict=True):
            listed |= self.there(shown.network, side, place)
            for name, value in place._asdict().items():
                field, numbers = f"{name}_{side}", listed[f"{name}_{side}"]
                # What is right is left alone: the user may have moved on in the meantime.
                known = view.listed or {}
                if known.get(field) != numbers or getattr(view, field) != value:
                    out[field] = self.update(
                        choices=numbers, value=value, interactive=len(numbers) > 1
                    )
        return out | {"listed": listed}

    def there(self, network: Network, side: str, place: Place) -> dict[str, list[int]]:
        """The stages there are, the blocks of the stage, and the heads of the block."""
        return {
            f"stage_{side}": stages(network.model),
            f"block_{side}": blocks(network.model, place.stage),
            f"head_{side}": heads(network.model, place.stage, place.block),
        }

    def follow(self, before: Shown | None, shown: Shown, view: View) -> Answer:
        """The page for what is opened now; the same network keeps the place that was looked at."""
        if before is None or before.network is not shown.network:
            kind = before.network.kind if before is not None else None
            new = first_view(shown.network, view)
            if kind == shown.network.kind:
                new = new._replace(opacity=view.opacity, borders=view.borders)
            view = new
        return self.whole(shown, view._replace(point=None))

    def open_file(
        self,
        path: str | os.PathLike[str],
        chosen: str,
        own: Mapping[str, Network],
        before: Shown | None,
        view: View,
        progress: Progress = _unseen,
    ) -> Answer:
        """A picture or a scan was uploaded.

        Raises:
            ImportError, OSError, ValueError: As :func:`open_upload`.
        """
        # One scan after the other from the same scanner: its axis is said once.
        up = before.up if before is not None and isinstance(before.source.content, bytes) else None
        shown = open_upload(
            path,
            chosen,
            self.networks(own),
            max_bytes=self.max_bytes,
            up=up or None,
            progress=progress,
        )
        if shown.network.title != chosen:
            kind, title = shown.source.kind, shown.network.title
            self.tell(f"{shown.source.name} is a {kind}, so {title} looks at it.")
        return {"upload": None, **self.follow(before, shown, view)}

    def open_network(
        self,
        paths: Sequence[str | os.PathLike[str]],
        own: Mapping[str, Network],
        before: Shown | None,
        view: View,
        progress: Progress = _unseen,
    ) -> Answer:
        """A user's own network was uploaded.

        Raises:
            ImportError, OSError, ValueError: As :func:`open_checkpoint`.
        """
        progress(0.1, "Reading the network")
        found = open_checkpoint(paths)
        own = {**own, found.title: found}
        out = {"own": own, "checkpoint": None}
        out |= self.change_network(found.title, own, before, view, progress)
        titles = list(self.networks(own))
        return out | {"network": self.update(choices=titles, value=found.title)}

    def change_network(
        self,
        chosen: str,
        own: Mapping[str, Network],
        before: Shown | None,
        view: View,
        progress: Progress = _unseen,
    ) -> Answer:
        """Another network was chosen: it looks at the same input, or at an example of its kind.

        Raises:
            ValueError: It is not there any more.
        """
        network = self.networks(own).get(chosen)
        if network is None:
            raise ValueError(f"the network {chosen!r} was forgotten: open it again")
        sources = [before.source] if before is not None else []
        sources += self.examples.get(network.kind, ())
        for source in [each for each in sources if each.kind == network.kind]:
            try:
                return self.follow(before, Shown(network, source, progress=progress), view)
            except ValueError as error:
                self.tell(str(error))
        self.tell(f"{network.title} takes a {network.kind}: open one")
        return {"about": network.about}

    def change_input(
        self,
        size: int | None,
        up: str | None,
        before: Shown | None,
        view: View,
        progress: Progress = _unseen,
    ) -> Answer:
        """Another size or another axis was chosen for the same input.

        Raises:
            ImportError, ValueError: As :class:`Shown`.
        """
        if before is None:
            return {}
        axis = up if before.network.kind == "scan" else None
        return self.follow(
            before, Shown(before.network, before.source, size, axis, progress=progress), view
        )

    def choose_example(
        self,
        kind: str,
        number: int,
        chosen: str,
        own: Mapping[str, Network],
        before: Shown | None,
        view: View,
        progress: Progress = _unseen,
    ) -> Answer:
        """An example was clicked.

        Raises:
            ValueError: There is no such example, or no network takes it.
        """
        there = self.examples.get(kind, ())
        if not 0 <= number < len(there):
            raise ValueError(f"there is no example {number}")
        network = network_for(kind, chosen, self.networks(own))
        return self.follow(before, Shown(network, there[number], progress=progress), view)

    def redraw(self, shown: Shown | None, view: View, progress: Progress = _unseen) -> Answer:
        """The view was changed."""
        progress(0.2, "Drawing")
        return {} if shown is None else self.pictures(shown, view)

    def save(
        self, form: str, shown: Shown | None, view: View, progress: Progress = _unseen
    ) -> Answer:
        """A file with what is shown.

        What is shown goes back as the user's own: the file is there for as long as it is.

        Raises:
            ImportError, OSError, ValueError: As :func:`save_view`, or nothing is shown.
        """
        if shown is None:
            raise ValueError("there is nothing to download yet: open a picture or a scan")
        progress(0.2, f"Writing {form}")
        path = save_view(shown, view.places(shown.network), view, form)
        return {"file": str(path), "shown": shown}


def heading(shown: Shown) -> str:
    """What stands above the picture."""
    return f"### {shown.source.name}"


def network_for(kind: str, title: str, networks: Mapping[str, Network]) -> Network:
    """The chosen network if it takes this kind of input, else the first that does.

    Args:
        kind: `"picture"` or `"scan"`.
        title: The chosen network's title.
        networks: All networks that this user may choose.

    Raises:
        ValueError: None takes it.
    """
    chosen = networks.get(title)
    for network in ([chosen] if chosen is not None else []) + list(networks.values()):
        if network.kind == kind:
            return network
    raise ValueError(
        f"none of the networks here takes a {kind}: open one that does under 'Your own network', "
        "or name it with --checkpoint"
    )


def open_upload(
    path: str | os.PathLike[str],
    title: str,
    networks: Mapping[str, Network],
    *,
    max_bytes: int,
    up: str | None = None,
    progress: Callable[[float, str], Any] = lambda share, what: None,
) -> Shown:
    """Show an uploaded picture or scan to the chosen network, or the first that takes such.

    The upload itself is deleted, whatever becomes of it.

    Args:
        path: Where it lies.
        title: The chosen network's title.
        networks: All networks that this user may choose.
        max_bytes: The largest upload that is taken.
        up: The axis that points up in scans; the network's own, if not said.
        progress: Told how far it is.

    Raises:
        ImportError, OSError, ValueError: It cannot be read, or no network takes it.
    """
    try:
        source = uploaded(path, max_bytes)
    finally:
        Path(path).unlink(missing_ok=True)
    network = network_for(source.kind, title, networks)
    return Shown(network, source, None, up if source.kind == "scan" else None, progress=progress)
