"""The tables: what each contender did, and how many times as well triggerflow did."""

from __future__ import annotations

from typing import Any

from run import Results

# (measure, how it is shown, field, whether more is better)
ROWS = (
    ("one_step 1", "one-step flows/s, 1 at once", "per_s", True),
    ("one_step 100", "one-step flows/s, 100 at once", "per_s", True),
    ("ten_steps 1", "steps/s of 10-step flows, 1 at once", "per_s", True),
    ("ten_steps 100", "steps/s of 10-step flows, 100 at once", "per_s", True),
    ("signal 100", "signal round trips/s, 100 signallers", "per_s", True),
    ("latency", "append or start to first step, p50, ms", "p50_ms", False),
    ("latency", "append or start to first step, p99, ms", "p99_ms", False),
    ("recover", "{n:,} parked: until all wait again, s", "seconds", False),
    ("answered", "{n:,} parked: until all have answered, s", "seconds", False),
    ("memory", "memory per parked flow of {n:,}, KB", "kb_each", False),
    ("one_step 1", "fsyncs per one-step flow, 1 at once", "fsyncs_each", False),
    ("one_step 100", "fsyncs per one-step flow, 100 at once", "fsyncs_each", False),
)
# (what, measure, field, beside the floor or by itself, at least or below)
AIMS = (
    ("steps/s at 100, beside the floor", "ten_steps 100", "floor", 1 / 2),
    ("one-step flows/s at 100, beside the floor", "one_step 100", "floor", 1 / 3),
    ("steps/s at 1", "ten_steps 1", "", 1300),
    ("signal round trips/s", "signal 100", "", 15_000),
)
LATENCY_MS = 5.0


def number(value: float | None, noisy: bool = False) -> str:
    if value is None:
        return "-"
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return text + ("!" if noisy else "")


def better(results: Results, measure: str, field: str, more: bool, other: str) -> float | None:
    """How many times as well as the other triggerflow did; the median over the rounds."""
    ours, theirs = f"triggerflow {measure}", f"{other} {measure}"
    pair = (ours, theirs) if more else (theirs, ours)
    return results.ratio(*pair, field=field) if results.get(theirs, field) else None


def unfinished(results: Results, what: str) -> str:
    """How many flows were where all should be, if patience ended before."""
    for line in results.lines.get(what, ()):
        if line.get("reached", line["n"]) < line["n"]:
            return f" (for {line['reached']:,})"
    return ""


def table(results: Results, names: list[str]) -> list[str]:
    others = [name for name in names if name != "triggerflow"]
    head = ["work", *names, *(f"x {name}" for name in others)]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for measure, title, field, more in ROWS:
        found = [results.get(f"{name} {measure}", field) for name in names]
        if not any(found):
            continue
        sizes = [
            line["n"] for name in names for line in results.lines.get(f"{name} {measure}", ())
        ]
        cells = [title.format(n=sizes[0])]
        for name, value in zip(names, found, strict=True):
            what = f"{name} {measure}"
            noisy = field == "per_s" and value is not None and results.spread(what) > 1.5
            cells.append(number(value, noisy) + unfinished(results, what))
        if "triggerflow" in names:
            for other in others:
                ratio = number(better(results, measure, field, more, other))
                late = unfinished(results, f"{other} {measure}")
                cells.append(f"> {ratio}" if late else ratio)
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def aims(results: Results) -> list[str]:
    rows = ["| against the aims | found | aim | |", "|---|---|---|---|"]
    for what, measure, beside, wanted in AIMS:
        if beside:
            found = better(results, measure, "per_s", True, beside)
        else:
            found = results.get(f"triggerflow {measure}")
        if found is not None:
            met = "yes" if found >= wanted else "NO"
            rows.append(f"| {what} | {number(found)} | >= {number(wanted)} | {met} |")
    found = results.get("triggerflow latency", "p50_ms")
    if found is not None:
        met = "yes" if found < LATENCY_MS else "NO"
        what = "append to first step, p50, ms"
        rows.append(f"| {what} | {number(found)} | < {number(LATENCY_MS)} | {met} |")
    return rows


def show(found: dict[str, Results], facts: dict[str, Any], names: list[str], us: int) -> None:
    print("\n" + ", ".join(f"{name} {value}" for name, value in facts.items()))
    print("`x name`: how many times as well as `name` triggerflow did (above 1: better)")
    for kind, results in found.items():
        disk = "the disk as it is" if kind == "plain" else f"every fsync {us:,} us slower"
        print(f"\n### {disk}\n")
        print("\n".join(table(results, names)))
        if kind == "plain" and "triggerflow" in names:
            print("\n" + "\n".join(aims(results)))
