"""Which panel is seen, as keys step from one to the next."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


class Stepper:
    """Steps through panels by stage, block and head, around from the last to the first.

    Titles such as "stage 1, block 3" tell stages and blocks; any other title is a stage of its own.

    Args:
        panels: Title and head of each panel, those of one title in a row.

    Raises:
        ValueError: There are no panels.
    """

    def __init__(self, panels: Sequence[tuple[str, str]]) -> None:
        if not panels:
            raise ValueError("there are no panels to step through")
        self.panels = list(panels)
        self.current = 0

    @property
    def title(self) -> str:
        """What is seen."""
        return ", ".join(each for each in self.panels[self.current] if each)

    def next(self) -> int:
        """The panel after this one."""
        return self._go((self.current + 1) % len(self.panels))

    def previous(self) -> int:
        """The panel before this one."""
        return self._go((self.current - 1) % len(self.panels))

    def stage(self) -> int:
        """The first block of the next stage, with the same head where it has one."""
        here = _stage(self._entry)
        return self._jump(lambda entry: _stage(entry) != here)

    def block(self) -> int:
        """The next block of the stage, with the same head."""
        here = _stage(self._entry)
        return self._jump(lambda entry: _stage(entry) == here and entry != self._entry)

    def head(self) -> int:
        """The next head of the block."""
        own = [i for i, (entry, _) in enumerate(self.panels) if entry == self._entry]
        return self._go(own[(own.index(self.current) + 1) % len(own)])

    @property
    def _entry(self) -> str:
        return self.panels[self.current][0]

    def _jump(self, wanted: Callable[[str], bool]) -> int:
        """To the next title that is wanted; stays where there is none."""
        titles = list(dict.fromkeys(entry for entry, _ in self.panels))
        start = titles.index(self._entry)
        around = titles[start + 1 :] + titles[:start]
        for title in around:
            if wanted(title):
                head = self.panels[self.current][1]
                first = next(i for i, (entry, _) in enumerate(self.panels) if entry == title)
                same = (title, head)
                return self._go(self.panels.index(same) if same in self.panels else first)
        return self.current

    def _go(self, panel: int) -> int:
        self.current = panel
        return panel


def _stage(title: str) -> str:
    found = re.match(r"stage (\d+), block \d+", title)
    return found[1] if found else title
