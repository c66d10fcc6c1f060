#!/usr/bin/env python3
"""Draws decode speeds from results of `hypura bench --json` as an SVG, readable on dark and on light pages.

    benchmarks/plot.py [FOLDER or FILE …] [-o OUT.svg]

Needs nothing but Python 3. One group of bars for each result, one bar for each arm. Each model has a scale of its own: one
may be seventy times as fast as another. A bar's value is in the bar, or at its end; the whisker goes from the 10th to the
90th percentile of the rounds, and the dashed tick is the limit that disk and processor set, with its own value beside it
(where it was measured).
"""

import argparse
import json
import sys
from html import escape
from pathlib import Path
from statistics import median

FORMAT = 1
WIDTH = 760
LEFT, RIGHT, TOP = 215, 84, 62
BAR, GAP, GROUP_GAP, MODEL_GAP = 18, 4, 16, 12
# A value needs so much room in a bar, or between its end and the limit.
VALUE_ROOM = 46

# Both greys have a contrast above 4 on white (#ffffff) and on GitHub's dark page (#0d1117); the media query helps further.
STYLE = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #6e7781 }
.title { font-weight: 600; font-size: 14px }
.value, .inside, .bound { font-variant-numeric: tabular-nums }
.value { font-weight: 600 }
.inside { font-weight: 600; fill: #0d1117 }
.bound { font-size: 11px }
.axis, .whisker, .limit { stroke: #6e7781; fill: none }
.limit { stroke-width: 2; stroke-dasharray: 3 2 }
.auto, .stream { fill: #2f81f7 } .mmap { fill: #d29922 } .resident { fill: #3fb950 } .plain { fill: #a371f7 } .naive { fill: #db61a2 } .blind { fill: #8b949e }
@media (prefers-color-scheme: dark) { text { fill: #adbac7 } .inside { fill: #0d1117 } .axis, .whisker, .limit { stroke: #adbac7 } }
"""

NAMES = {
    "auto": "hypura",
    "stream": "hypura, streaming",
    "resident": "all in memory",
    "mmap": "llama.cpp, mmap",
    "plain": "llama.cpp, all in memory",
    "naive": "streaming without overlap",
    "blind": "hypura, no statistics",
}


def results(places):
    """The reports in these files and folders, smallest cap first."""
    files = []
    for place in places:
        files += sorted(place.glob("*.json")) if place.is_dir() else [place]
    reports = []
    for file in files:
        report = json.loads(file.read_text(encoding="utf-8"))
        if "arms" not in report:
            continue
        if report.get("format") != FORMAT:
            sys.exit(f"plot.py: {file} has format {report.get('format')}, and this script draws {FORMAT}")
        reports.append(report)
    return sorted(reports, key=lambda r: (r["model"]["file"], r["settings"]["memcap_bytes"] or 1 << 62, bool(r["settings"]["routes"])))


def group_label(report):
    """Lines that say what this group of bars is about."""
    settings = report["settings"]
    cap = settings["memcap_bytes"] or settings["memory_bytes"]
    model = report["model"]["file"].removesuffix(".gguf").removesuffix("-all")
    for prefix in ("hypura-bench-", "hypura-suite-"):
        model = model.removeprefix(prefix)
    memory = f"{cap / (1 << 30):.3g} GiB of memory" if cap else f"{report['machine']['memory_bytes'] / (1 << 30):.0f} GiB of memory"
    lines = [model, f"{report['model']['file_bytes'] / (1 << 30):.1f} GiB, {memory}"]
    if settings["routes"]:
        lines.append("routes of a real model")
    return lines


def short(text, limit=28):
    return text if len(text) <= limit else text[: limit - 1] + "…"


def limit_of(arm):
    limits = [run["roofline"]["limit_tps"] for run in arm["runs"] if run.get("roofline")]
    return median(limits) if limits else None


def scale_of(reports):
    """Pixels for each token per second, so that the longest bar, whisker or limit of these just fits."""
    bars = [arm for report in reports for arm in report["arms"] if arm["decode_tps"]]
    most = max([max(arm["decode_tps"]["p90"], limit_of(arm) or 0) for arm in bars], default=0)
    return (WIDTH - LEFT - RIGHT) / most if most > 0 else None


def draw(reports):
    models = {}
    for report in reports:
        models.setdefault(report["model"]["file"], []).append(report)
    out, y = [], TOP
    for group in models.values():
        scale = scale_of(group)
        if scale is None:
            continue
        top = y
        for report in group:
            arms = [arm for arm in report["arms"] if arm["decode_tps"]]
            for at, line in enumerate(group_label(report)):
                out.append(f'<text x="{LEFT - 12}" y="{y + 13 + 16 * at}" text-anchor="end">{escape(short(line))}</text>')
            for at, arm in enumerate(arms):
                out += bar(arm, y + at * (BAR + GAP), scale)
            y += max(len(arms) * (BAR + GAP), 16 * len(group_label(report))) + GROUP_GAP
        out.append(f'<path class="axis" d="M{LEFT} {top - 4}V{y - GROUP_GAP + 2}"/>')
        y += MODEL_GAP
    if not out:
        sys.exit("plot.py: there is nothing to draw")
    out += legend(reports, y)
    title = "Decode speed in tokens per second, each model to its own scale"
    note = "whisker: p10–p90; dashed: the limit of disk and processor"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 30}" width="{WIDTH}" height="{y + 30}" '
        f'role="img" aria-label="{escape(title)} ({escape(note)})">\n<style>{STYLE}</style>\n'
        f'<text class="title" x="12" y="22">{escape(title)}</text>\n'
        f'<text class="bound" x="12" y="41">{escape(note)}</text>\n'
    )
    return head + "\n".join(out) + "\n</svg>\n"


def bar(arm, y, scale):
    speed, middle = arm["decode_tps"], y + BAR / 2
    end = LEFT + speed["median"] * scale
    low, high = LEFT + speed["p10"] * scale, LEFT + speed["p90"] * scale
    yield f'<rect class="{arm["arm"]}" x="{LEFT}" y="{y}" width="{max(end - LEFT, 1):.1f}" height="{BAR}" rx="2"/>'
    if high - low > 1:
        yield f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"/>'
    value, limit = f'{speed["median"]:.3g}', limit_of(arm)
    at = LEFT + limit * scale if limit else end
    # The value is where it cannot be taken for the limit's: in the bar, before the whisker, or right behind the bar.
    inner = min(end, low, at)
    if inner - LEFT >= VALUE_ROOM:
        yield f'<text class="inside" x="{inner - 6:.1f}" y="{middle + 4.5}" text-anchor="end">{value}</text>'
        text = max(end, high)
    else:
        yield f'<text class="value" x="{max(end, high) + 6:.1f}" y="{middle + 4.5}">{value}</text>'
        text = max(end, high) + VALUE_ROOM
    if limit:
        yield f'<path class="limit" d="M{at:.1f} {y}v{BAR}"/>'
        yield f'<text class="bound" x="{max(at, text) + 6:.1f}" y="{middle + 4}">limit {limit:.3g}</text>'


def legend(reports, y):
    x = 12
    for name in dict.fromkeys(arm["arm"] for report in reports for arm in report["arms"]):
        label = NAMES.get(name, name)
        yield f'<rect class="{escape(name)}" x="{x}" y="{y + 4}" width="12" height="12" rx="2"/>'
        yield f'<text x="{x + 18}" y="{y + 14.5}">{escape(label)}</text>'
        x += 42 + 7 * len(label)


def main():
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", type=Path, default=[here / "results"], metavar="FOLDER or FILE")
    parser.add_argument("-o", "--out", type=Path, default=here / "decode.svg")
    arguments = parser.parse_args()
    reports = results(arguments.places)
    if not reports:
        sys.exit("plot.py: no results there: run benchmarks/run.sh first")
    arguments.out.write_text(draw(reports), encoding="utf-8")
    print(f"{arguments.out}: {len(reports)} results", file=sys.stderr)


if __name__ == "__main__":
    main()
