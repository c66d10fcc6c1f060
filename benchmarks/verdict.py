#!/usr/bin/env python3
"""Holds results of the suite against its targets: what, target, measured, verdict.

    benchmarks/verdict.py BLOCK FILE…            a block of suite.sh, from what it wrote
    benchmarks/verdict.py prediction [FILE…]     how far predictions were off, over all results [default: results/suite/*.json]
    benchmarks/verdict.py plan HYPURA MODEL OUT  times `hypura plan` and counts what it reads; writes OUT

Needs nothing but Python 3. Exits with 0 whatever the verdicts are: a missed target is a result, not a failure.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

GIB = 1 << 30


def load(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def arm(report, name=None):
    if name is None:
        return report["arms"][0]
    return next((found for found in report["arms"] if found["arm"] == name), None)


def against(report, name):
    """Median ratio of decode speeds within the rounds, and the same of prompts."""
    found = next((pair for pair in report["comparisons"] if pair["against"] == name), None)
    decode = found["decode"]["median"] if found and found["decode"] else None
    prefill = found["prefill"]["median"] if found and found["prefill"] else None
    return decode, prefill


def at_least(what, target, value, digits=2, unit=""):
    text = "not measured" if value is None else f"{value:.{digits}f}{unit}"
    return what, f"≥ {target}{unit}", text, None if value is None else value >= target


def at_most(what, target, value, digits=2, unit=""):
    text = "not measured" if value is None else f"{value:.{digits}f}{unit}"
    return what, f"≤ {target}{unit}", text, None if value is None else value <= target


def fact(what, text):
    return what, "", text, None


def efficiency(report, target):
    measured = arm(report)
    found = measured["efficiency"]
    line = at_least("efficiency, decode", target, found["median"] if found else None)
    roofs = [run["roofline"] for run in measured["runs"] if run.get("roofline")]
    yield line
    if roofs:
        middle = lambda key: median(roof[key] for roof in roofs)
        bound = "disk" if 2 * sum(roof["bound_by"] == "disk" for roof in roofs) >= len(roofs) else "compute"
        yield fact(
            "  limit",
            f"{middle('limit_tps'):.2f} tok/s: C {middle('compute_ms'):.1f} ms ({roofs[0]['compute_source']}), reading "
            f"{middle('read_ms'):.1f} ms at {middle('disk_bytes_per_s') / 1e9:.2f} GB/s; bound by {bound}",
        )
        if bound == "compute" and roofs[0]["compute_source"] == "same-run":
            yield fact("  beware", "C is that of the run itself, its own costs included: such an efficiency flatters")


def memory(report, within=None):
    for measured in report["arms"]:
        if measured["budget_bytes"] is None:
            continue
        peak = max(measured["cgroup_peak_bytes"] or 0, measured["peak_rss_bytes"] or 0)
        name = measured["arm"]
        yield at_most(f"peak, {name}, of the budget", 1.0, peak / measured["budget_bytes"], 3)
        if within:
            off = peak / measured["planned_bytes"] - 1
            yield at_most(f"peak, {name}, off the plan", within, abs(off) * 100, 1, "%")


def speeds(report):
    for measured in report["arms"]:
        speed, prompt = measured["decode_tps"], measured["prefill_tps"]
        text = f"{speed['median']:.2f} tok/s, prompt {prompt['median']:.2f} tok/s"
        if measured["hit_rate"] is not None:
            text += f", {measured['hit_rate'] * 100:.1f}% hits"
        if measured["read_bytes_per_token"]:
            text += f", {measured['read_bytes_per_token'] / (1 << 20):.0f} MiB a token"
        yield fact(measured["arm"], f"{text}, load {measured['load_ms'] / 1e3:.1f} s")
    disturbed = sum(measured["disturbed"] for measured in report["arms"])
    if disturbed:
        yield fact("disturbed runs", f"{disturbed} of {sum(len(measured['runs']) for measured in report['arms'])}")


def predicted(report):
    error = arm(report).get("prediction_error") or {}
    given = arm(report).get("error_given_hits") or {}
    show = lambda value: "–" if value is None else f"{value * 100:+.0f}%"
    yield fact(
        "prediction off by",
        f"decode {show(error.get('decode'))} ({show(given.get('decode'))} knowing the hits), load {show(error.get('load'))}, "
        f"prompt {show(error.get('prefill'))}, bytes {show(error.get('read_bytes'))}",
    )


def qwen3(reports, mmap_target):
    for report in reports:
        yield from speeds(report)
        if report["settings"]["routes"]:
            yield fact("routes", "forced from a trace")
        yield from efficiency(report, 0.90)
        decode, prompt = against(report, "mmap")
        if arm(report, "mmap"):
            yield at_least("against mmap, decode", mmap_target, decode, 2, "×")
            yield fact("against mmap, prompt", f"{prompt:.2f}×")
        if arm(report, "naive"):
            yield at_least("against naive, decode", 1.6, against(report, "naive")[0], 2, "×")
        yield from memory(report)
        yield from predicted(report)


def mixtral(reports):
    for report in reports:
        yield from speeds(report)
        yield from efficiency(report, 0.90)
        yield at_least("against mmap, decode", 2.0, against(report, "mmap")[0], 2, "×")
        yield from memory(report)
        yield from predicted(report)


def llama(reports):
    for report in reports:
        yield from speeds(report)
        yield from efficiency(report, 0.95)
        yield at_least("against mmap, decode", 1.5, against(report, "mmap")[0], 2, "×")
        yield from memory(report)
        yield from predicted(report)


def all_hits(reports):
    for report in reports:
        yield from speeds(report)
        ratios = token_ratio(report, "resident")
        yield at_most("overhead when every lookup hits", 5.0, None if ratios is None else (1 / ratios - 1) * 100, 1, "%")
        yield fact("lookups that missed", str(sum(run["decode"]["experts_missed"] for run in arm(report)["runs"])))


def token_ratio(report, other):
    """Median over rounds of the ratio of median token times: less shaken by single tokens than means."""
    runs = {run["round"]: median(run["token_ms"]) for run in arm(report, other)["runs"]}
    ratios = [runs[run["round"]] / median(run["token_ms"]) for run in arm(report)["runs"] if run["round"] in runs]
    return median(ratios) if ratios else None


def stats_cost(reports):
    for report in reports:
        yield from speeds(report)
        ratio = token_ratio(report, "blind")
        yield at_most("cost of statistics, of a token's time", 1.0, None if ratio is None else (1 / ratio - 1) * 100, 2, "%")
        per_round = []
        blind = {run["round"]: median(run["token_ms"]) for run in arm(report, "blind")["runs"]}
        for run in arm(report)["runs"]:
            per_round.append((median(run["token_ms"]) / blind[run["round"]] - 1) * 100)
        yield fact("  round by round", ", ".join(f"{value:+.1f}%" for value in per_round))


def neighbour(reports):
    """Results in turn: quiet, busy, quiet, busy, …"""
    quiet, busy = reports[0::2], reports[1::2]
    for name in [measured["arm"] for measured in reports[0]["arms"]]:
        speed = lambda report: 1e3 / median(ms for run in arm(report, name)["runs"] for ms in run["token_ms"])
        kept = [speed(b) / speed(q) for q, b in zip(quiet, busy)]
        yield fact(name, f"quiet {median(map(speed, quiet)):.2f} tok/s, beside a busy process {median(map(speed, busy)):.2f} tok/s")
        yield at_least(f"speed kept, {name}", 45, median(kept) * 100, 0, "%")


def prefill(reports):
    for report in reports:
        yield from speeds(report)
        yield at_least("prompt of 2048, streamed / resident", 0.90, against(report, "resident")[1])
        measured = arm(report)
        read = median(run["prefill"]["bytes_read"] for run in measured["runs"])
        absent = (1 - measured["runs"][0]["cached_fraction"]) * measured["runs"][0]["streamable_bytes"]
        yield fact("read for the prompt", f"{read / GIB:.2f} GiB; all that is not resident: {absent / GIB:.2f} GiB")


def soak(reports):
    for report in reports:
        for run in arm(report)["runs"]:
            done = run["soak"]
            yield fact(
                "soak",
                f"{done['seconds'] / 60:.1f} min, {done['prompts']} prompts of 1 to {done['longest_prompt']} tokens, "
                f"{done['prompt_tokens']} prompt and {done['generated_tokens']} generated tokens",
            )
            growth = [f"{at / 60:.0f} min {rss / GIB:.3f}" for at, rss in done["peak_rss"][:: max(1, len(done["peak_rss"]) // 5)]]
            yield fact("  largest RSS so far, GiB", ", ".join(growth))
        yield from memory(report, within=3.0)
        cap = report["settings"]["memcap_bytes"]
        peak = arm(report)["cgroup_peak_bytes"]
        if cap and peak:
            yield at_most("peak of the cap, page cache included", 1.0, peak / cap, 3)


def kimi(reports):
    for report in reports:
        yield from speeds(report)
        yield at_most("load", 60, arm(report)["load_ms"] / 1e3, 1, " s")
        yield from efficiency(report, 0.85)
        yield from memory(report)
        yield from predicted(report)


def planned(reports):
    for found in reports:
        yield fact("model", f"{found['model_bytes'] / 1e9:.0f} GB in {found['shards']} files")
        yield at_most("plan", 0.5, median(found["seconds"]), 3, " s")
        yield at_most("read, of the model", 0.1, found["read_bytes"] / found["model_bytes"] * 100, 4, "%")
        yield fact("  that is", f"{found['read_bytes'] / 1e6:.1f} MB, all headers together hold {found['header_bytes'] / 1e6:.1f} MB")


def serve8(reports):
    for report in reports:
        first = report["rounds"]
        text = lambda key: f"{median(found[key]['tokens_per_s'] for found in first):.2f} tok/s"
        yield fact("one user", text("alone"))
        yield fact(f"{report['users']} users together", text("together"))
        # Dense models gain more: each weight is read once for all users.
        target = 5.0 if "llama" in report["model"] else 2.0
        yield at_least("together / one, prompts included", target, report["ratio"], 2, "×")
        if "decode_ratio" in report:
            yield fact("together / one, answers only", f"{report['decode_ratio']:.2f}×")


def prediction(reports):
    errors = {"decode": [], "load": [], "prefill": [], "read_bytes": [], "decode, hits known": []}
    for report in reports:
        if "arms" not in report or not report["arms"]:
            continue
        error = arm(report).get("prediction_error") or {}
        given = arm(report).get("error_given_hits") or error
        for key in ("decode", "load", "prefill", "read_bytes"):
            if error.get(key) is not None:
                errors[key].append(abs(error[key]) * 100)
        if given.get("decode") is not None:
            errors["decode, hits known"].append(abs(given["decode"]) * 100)
    for key, values in errors.items():
        if not values:
            continue
        if key in ("decode", "load"):
            yield at_most(f"{key}: median error of {len(values)}", 15, median(values), 0, "%")
            yield at_most(f"{key}: worst error", 35, max(values), 0, "%")
        else:
            yield fact(f"{key}: median, worst of {len(values)}", f"{median(values):.0f}%, {max(values):.0f}%")


BLOCKS = {
    "qwen3-6G": lambda reports: qwen3(reports, 4.5),
    "qwen3-8G": lambda reports: qwen3(reports, 3.0),
    "qwen3-10G": lambda reports: qwen3(reports, 3.0),
    "mixtral": mixtral,
    "llama-70b": llama,
    "all-hits": all_hits,
    "stats-cost": stats_cost,
    "neighbour": neighbour,
    "prefill2048": prefill,
    "soak": soak,
    "kimi-1T": kimi,
    "plan-400GB": planned,
    "serve8": serve8,
    "prediction": prediction,
}


def show(title, lines):
    print(f"\n== {title}")
    for what, target, measured, good in lines:
        verdict = "" if good is None else ("met" if good else "MISSED")
        print(f"{what:<42} {target:>10}  {measured:<28} {verdict}".rstrip())


def measure_plan(hypura, model, out):
    """Runs `plan` several times. Bytes are those of all read calls of the child: the kernel adds them to the parent's."""
    def read_so_far():
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(fields["rchar"])

    first = Path(model)
    files = sorted(first.parent.glob(first.name.replace("00001-of", "*-of")))
    seconds, read = [], []
    for _ in range(5):
        for file in files:
            with open(file, "rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before, start = read_so_far(), time.monotonic()
        answer = subprocess.run([hypura, "plan", model, "--json", "--memory", "20GiB"], stdout=subprocess.PIPE, check=True)
        seconds.append(time.monotonic() - start)
        read.append(read_so_far() - before)
    model_facts = json.loads(answer.stdout)["model"]
    found = {
        "shards": len(files),
        "model_bytes": sum(file.stat().st_size for file in files),
        "header_bytes": sum(file.stat().st_size for file in files) - model_facts["bytes"],
        "seconds": seconds[1:],
        "first_seconds": seconds[0],
        "read_bytes": max(read[1:]),
    }
    Path(out).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    show("plan-400GB", planned([found]))


def main():
    if len(sys.argv) == 5 and sys.argv[1] == "plan":
        return measure_plan(*sys.argv[2:])
    if len(sys.argv) < 2 or sys.argv[1] not in BLOCKS:
        sys.exit(__doc__.strip() + "\n\nBLOCK is one of " + ", ".join(BLOCKS))
    files = sys.argv[2:] or sorted(str(file) for file in (Path(__file__).resolve().parent / "results" / "suite").glob("*.json"))
    show(sys.argv[1], BLOCKS[sys.argv[1]]([load(file) for file in files]))
    return None


if __name__ == "__main__":
    main()
