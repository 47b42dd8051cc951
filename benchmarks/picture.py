"""The rates as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Case, Results

_COLOURS = {"limits": "#9aa5b1", "ours": "#1f7a8c", "peers": "#c8553d", "revisions": "#1f7a8c", "growth": "#1f7a8c"}
_BAR_INCHES = 0.34
_MARGIN_INCHES = 1.1
_WIDTH_INCHES = 10


def draw(results: Results, path: Path) -> None:
    """Draw the events per second of all cases, with the lowest and the highest of the rounds."""
    rates = [case for case in results.samples if case.part in _COLOURS]
    panels = [
        ("Events per second", [case for case in rates if case.part != "growth"]),
        ("Events per second, as the workload grows in one respect", [case for case in rates if case.part == "growth"]),
    ]
    panels = [(title, cases) for title, cases in panels if cases]
    if not panels:
        return
    heights = [_MARGIN_INCHES + _BAR_INCHES * len(cases) for _, cases in panels]
    with mpl.rc_context({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(_WIDTH_INCHES, sum(heights)), layout="constrained")
        axes = figure.subplots(len(panels), height_ratios=heights, squeeze=False)
        for axis, (title, cases) in zip(axes.flat, panels, strict=True):
            _draw_panel(axis, title, results, cases)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_panel(axis: Axes, title: str, results: Results, cases: Sequence[Case]) -> None:
    spreads = [results.of(case)["per_second"] for case in cases]
    medians = [spread.median for spread in spreads]
    axis.barh(
        [case.name for case in cases],
        medians,
        xerr=[
            [spread.median - spread.low for spread in spreads],
            [spread.high - spread.median for spread in spreads],
        ],
        color=[_COLOURS[case.part] for case in cases],
        error_kw={"ecolor": "#333333", "capsize": 2},
    )
    for place, spread in enumerate(spreads):
        axis.annotate(
            f"{spread.median:,.0f}", (spread.high, place), xytext=(5, 0), textcoords="offset points", va="center"
        )
    axis.set_title(title, loc="left")
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.spines[["top", "right"]].set_visible(False)
