"""The page and the picture that benchmarks/peers.py makes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from measure import COLORS, MEMORY_NOTE, MIB, machine, number, table, tidy

SPREAD = "mean ± standard deviation over"
METRICS = ("test_accuracy", "test_mean_class_accuracy")


def page(
    title: str,
    runs: Sequence[dict[str, Any]],
    rows: dict[str, dict[str, Any]],
    test_clouds: int,
    usual_lr: float,
    command: str,
    image: str = "",
) -> str:
    """The table of all networks, and by how much the first is ahead of the others."""
    one, seeds = runs[0], len({run["seed"] for run in runs})
    place = f"Test accuracy of the last epoch, {SPREAD}"
    cloud = f"one of the {test_clouds} test clouds"
    if "folds" in one:
        place = (
            f"Accuracy of the last epoch on the {one['folds']} folds of the training clouds in "
            f"turn, each held out from the others, averaged; no test cloud was used; {SPREAD}"
        )
        cloud = f"one of the {test_clouds} clouds"
    lines = [
        [
            name,
            f"{row['parameters'] / 1e6:.2f}M",
            f"{row['gflop']:.3f}",
            *(spread(row[key], row["runs"], seeds) if key in row else "–" for key in METRICS),
            *(number(row.get(what)) for what in ("inference", "training")),
            number(row["memory"] / MIB if "memory" in row else None, " MiB"),
        ]
        for name, row in rows.items()
    ]
    first, *others = (name for name, row in rows.items() if METRICS[0] in row)
    ahead = [
        f"- {first} is {describe(*(rows[each][METRICS[0]] for each in (first, name)))} {name} "
        f"overall and {describe(*(rows[each][METRICS[1]] for each in (first, name)))} it in the "
        "mean over classes."
        for name in others
    ]
    header = ["network", "parameters", "GFLOP", "overall, %", "mean over classes, %"]
    header += ["inference, clouds/s", "training, clouds/s", "its memory"]
    counts = {row["runs"] for row in rows.values() if METRICS[0] in row}
    fewer = " where no other number of runs is given" if len(counts) > 1 else ""
    other_rates = [f"{name} {row['lr']:g}" for name, row in rows.items() if row["lr"] != usual_lr]
    parts = [
        f"# {title}",
        f"Made by {command}.",
        f"{one['epochs']} epochs, {one['num_points']:,} points a cloud, batches of "
        f"{one['batch_size']}, AdamW with weight decay {one['weight_decay']:g}, a highest learning "
        f"rate of {usual_lr:g} ({', '.join(other_rates) or 'all networks'}) and a cosine schedule, "
        f"label smoothing {one['label_smoothing']:g}, augmentation {one['augmentation']}, the same "
        f"for all. {place} {seeds} seed{'s' * (seeds > 1)}{fewer}; {cloud} is "
        f"{100 / test_clouds:.1f} percentage points. GFLOP: one cloud, inference.",
        "Trained on " + "; ".join(sorted({run["machine"] for run in runs})) + ".",
        f"Timed on {machine()}. Memory: of a training step. {MEMORY_NOTE}" if image else "",
        table(header, lines),
        f"![Accuracy against speed]({image})" if image else "",
        "\n".join(ahead),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def draw(figure: Any, rows: dict[str, dict[str, Any]], own: Collection[str]) -> None:
    """Accuracy against clouds a second, with the spread over seeds; `own` are this library's."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes = figure.subplots()
    shown = {name: row for name, row in rows.items() if METRICS[0] in row}
    for i, (name, row) in enumerate(shown.items()):
        mean, deviation = (100 * (row[METRICS[0]][key] or 0) for key in ("mean", "std"))
        ours = name in own
        axes.errorbar(
            row["inference"],
            mean,
            yerr=deviation,
            fmt="o" if ours else "s",
            color=COLORS[i % len(COLORS)],
            markersize=8 if ours else 6,
            capsize=3,
            label=name if row[METRICS[0]]["std"] is not None else f"{name} (1 run)",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # more labels would overlap
    axes.xaxis.set_minor_formatter(NullFormatter())
    title = "test accuracy, mean ± standard deviation over the seeds, %"
    tidy(axes, title, x="clouds a second, inference (searches included)")
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)


def spread(values: dict[str, float], runs: int, usual: int) -> str:
    """In per cent; where it is of other than the usual number of runs, this is said."""
    text = f"{100 * values['mean']:.1f}"
    text = text if values["std"] is None else f"{text} ± {100 * values['std']:.1f}"
    return text if runs == usual else f"{text} ({runs} run{'s' * (runs > 1)})"


def describe(one: dict[str, float], other: dict[str, float]) -> str:
    difference = one["mean"] - other["mean"]
    return f"{abs(100 * difference):.1f} points {'ahead of' if difference >= 0 else 'behind'}"
