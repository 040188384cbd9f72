"""Where everything that users do on the page is answered."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pointcluster.app.checkpoint import open_checkpoint
from pointcluster.app.classified import Classified
from pointcluster.app.labelled import Labelled
from pointcluster.app.network import Classifier, Network, SceneNetwork
from pointcluster.app.session import CLUSTERS, Shown, View, first_view
from pointcluster.app.source import Source, uploaded

ASIDES = ("a", "b")

Answer = dict[str, Any]
"""New values of the parts of the page, by their names; gradio's updates, or values."""


def _unseen(share: float, what: str) -> None:
    """Nobody watches."""


class User(NamedTuple):
    """What belongs to one user when they ask for something."""

    shown: Shown | None
    """What they look at."""
    view: View
    network: str = ""
    """Title of the network that they chose."""
    own: Mapping[str, Network] = {}
    """Networks that they opened, by titles."""
    say: Callable[[float, str], Any] = _unseen
    """Told how far the answer is, from 0 to 1, and what is done next."""


class Desk:
    """Answers of the page. It holds only what all users share and nobody changes; what belongs to
    one user comes as an argument and goes back in the answer.

    Args:
        offered: The networks that everyone may choose, by their titles.
        examples: What there is to choose without an upload, by kinds.
        update: Gradio's `update`, which changes what there is to choose.
        tell: Shows a message beside the page.
    """

    def __init__(
        self,
        offered: Mapping[str, Network],
        examples: Mapping[str, Sequence[Source]],
        update: Callable[..., Any],
        tell: Callable[[str], Any],
    ) -> None:
        self.offered, self.examples, self.update, self.tell = offered, examples, update, tell
        self.first = self._first()

    def _first(self) -> Shown | None:
        """What is on the page before anyone did anything."""
        for network in self.offered.values():
            for source in self.examples.get(network.kind, ()):
                try:
                    return show(network, source)
                except ValueError:  # this network needs features that the example lacks
                    continue
        return None

    def current(self, shown: Shown | None, name: str) -> Shown | None:
        """What a user looks at, which is the first example until something is kept of them.

        Raises:
            ValueError: Nothing is kept any more: the page says that it shows something else.
        """
        if shown is not None or self.first is None:
            return shown
        if name != heading(self.first):
            raise ValueError("this page was open for so long that it was forgotten: load it again")
        return self.first.again()

    # What a user does. All raise ImportError, OSError or ValueError with what to tell them.

    def open_file(self, user: User, path: str | os.PathLike[str]) -> Answer:
        """A picture or a scan was uploaded."""
        source, before = uploaded(path), user.shown
        if before is not None and not before.source.is_upload:
            before = None
        # One file after the other from the same scanner: what suits it is said once.
        kept = before is not None and (source.kind, user.network) == (
            before.source.kind, before.network.title
        )  # fmt: skip
        network = network_for(source, user.network, {**user.own, **self.offered}, kept)
        shown = show(network, source, up=before.up if before is not None else None, say=user.say)
        if network.title != user.network:
            self.tell(f"{source.name} is a {source.kind}, so {network.title} looks at it.")
        return {"upload": None, **self.follow(user, shown)}

    def open_network(self, user: User, paths: Sequence[str | os.PathLike[str]]) -> Answer:
        """A user's own network was uploaded."""
        user.say(0.1, "Reading the network")
        found = open_checkpoint(paths)
        user = user._replace(own={**user.own, found.title: found}, network=found.title)
        titles = list({**user.own, **self.offered})
        return {"own": user.own, "checkpoint": None} | self.change_network(user) | {
            "network": self.update(choices=titles, value=found.title)
        }  # fmt: skip

    def change_network(self, user: User) -> Answer:
        """Another network was chosen: it looks at the same input, or at an example of its kind."""
        network = {**user.own, **self.offered}.get(user.network)
        if network is None:
            raise ValueError(f"the network {user.network!r} was forgotten: open it again")
        sources = [user.shown.source] if user.shown is not None else []
        for source in filter(network.takes, [*sources, *self.examples.get(network.kind, ())]):
            try:
                return self.follow(user, show(network, source, say=user.say))
            except ValueError as error:
                self.tell(str(error))
        self.tell(f"{network.title} takes a {network.kind}: open one")
        return {"about": network.about}

    def change_input(self, user: User, size: int | None, up: str | None) -> Answer:
        """Another size or another axis was chosen for the same input."""
        if (before := user.shown) is None:
            return {}
        return self.follow(user, show(before.network, before.source, size, up, user.say))

    def choose_example(self, user: User, kind: str, number: int) -> Answer:
        """An example was clicked."""
        there = self.examples.get(kind, ())
        if not 0 <= number < len(there):
            raise ValueError(f"there is no example {number}")
        network = network_for(there[number], user.network, {**user.own, **self.offered})
        return self.follow(user, show(network, there[number], say=user.say))

    def redraw(self, user: User) -> Answer:
        """The view was changed."""
        user.say(0.2, "Drawing")
        return {} if user.shown is None else self.pictures(user.shown, user.view)

    def save(self, user: User, form: str) -> Answer:
        """A download was asked for.

        What is shown goes back as the user's own: the file is there for as long as it is.
        """
        shown, view = user.shown, user.view
        if shown is None:
            raise ValueError("there is nothing to download yet: open a picture or a scan")
        user.say(0.2, f"Writing {form}")
        sides = view.sides(shown.network)
        path = shown.save(sides if view.compare else sides[:1], view, form)
        return {"file": str(path), "shown": shown}

    # What the page shows then.

    def follow(self, user: User, shown: Shown) -> Answer:
        """The page for what is opened now; the same network keeps the place that was looked at."""
        before, view = user.shown, user.view
        if before is None or before.network is not shown.network:
            new = first_view(shown.network, view)
            if before is not None and before.network.kind == shown.network.kind:
                new = new._replace(opacity=view.opacity, borders=view.borders)
            view = new
        return self.whole(shown, view._replace(point=None))

    def whole(self, shown: Shown, view: View) -> Answer:
        """The whole page for another input or network."""
        network, update, scene = shown.network, self.update, shown.network.kind == "scene"
        out = {
            "shown": shown,
            "network": update(value=network.title),
            "about": network.about,
            "input": update(visible=not scene),
            "size": update(choices=list(network.sizes), value=shown.size, label=network.size_label),
            "up": update(value=shown.up or "y", visible=network.kind == "scan"),
            "title": heading(shown),
            "classes": update(value=shown.summary, label=shown.summary_label),
            "looks": update(visible=not scene),
            "opacity": view.opacity,
            "borders": view.borders,
            "point": view.point or "",
            "format": update(choices=list(shown.formats), value=shown.formats[0][1]),
        }
        out |= {f"colours_{side}": update(visible=scene) for side in ASIDES}
        for kind, there in self.examples.items():
            out[f"{kind}s"] = update(visible=kind == network.kind and len(there) > 0)
        return out | self.pictures(shown, view._replace(listed=None))

    def pictures(self, shown: Shown, view: View) -> Answer:
        """The figures, what is said of the chosen point, and what there is to choose."""
        both = [shown.fitted(side) for side in view.sides(shown.network)]
        sides = both if view.compare else both[:1]
        point = shown.point(view.point)
        figures = shown.figures(sides, view)
        out: Answer = {f"plot_{name}": each for name, each in zip(ASIDES, figures, strict=False)}
        out["column_b"] = self.update(visible=bool(view.compare))
        out["code"] = f"The same without this page: `{shown.code(sides[0])}`"
        said = [shown.hint] if point is None else [shown.words(side, point) for side in sides]
        if point is not None and len(sides) > 1:
            said = [f"*{side}*  \n{text}" for side, text in zip(sides, said, strict=True)]
        out["words_a"], out["words_b"] = [*said, ""][:2]
        listed: dict[str, list[Any]] = {}
        for name, side in zip(ASIDES, both, strict=True):
            out[f"places_{name}"] = self.update(visible=side.colour in (None, CLUSTERS))
            out[f"kinds_{name}"] = self.update(visible=side.colour == "probability")
            for part, there in shown.choices(side).items():
                field, value = f"{part}_{name}", getattr(side, part)
                listed[field] = there
                # What is right is left alone: the user may have moved on in the meantime.
                if (view.listed or {}).get(field) != there or getattr(view, field) != value:
                    more = len(there) > 1
                    out[field] = self.update(choices=there, value=value, interactive=more)
        return out | {"listed": listed}


def show(
    network: Network,
    source: Source,
    size: int | None = None,
    up: str | None = None,
    say: Callable[[float, str], Any] = _unseen,
) -> Shown:
    """Let a network look at a picture or a scan, at a size and turned where there is a choice.

    Raises:
        ImportError, ValueError: It cannot be read, or does not fit the network.
    """
    if isinstance(network, SceneNetwork):
        return Labelled(network, source, say)
    assert isinstance(network, Classifier)
    return Classified(network, source, size, up if network.kind == "scan" else None, say)


def heading(shown: Shown) -> str:
    """What stands above the picture."""
    return f"### {shown.source.name}" + (f"\n{shown.note}" if shown.note else "")


def network_for(
    source: Source, title: str, networks: Mapping[str, Network], kept: bool = False
) -> Network:
    """The network of a title if it suits what is opened, else the first that does.

    Scenes are classified as a whole only where somebody asked for it before: where it is `kept`.

    Raises:
        ValueError: None takes it.
    """
    chosen = [networks[title]] if title in networks else []
    takers = [network for network in (*chosen, *networks.values()) if network.takes(source)]
    if takers[:1] == chosen and chosen and (kept or source.kind != "scene"):
        return chosen[0]
    for network in [each for each in takers if each.kind == source.kind] or takers:
        return network
    raise ValueError(
        f"none of the networks here takes a {source.kind}: open one that does under 'Your own "
        "network', or name it with --checkpoint"
    )
