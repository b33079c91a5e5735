"""Which parts of a `Control` go together, what it means then, and in which order they act."""

from __future__ import annotations

from typing import Final

import attrs

PARTS: Final = (
    "debounce",
    "batch",
    "rate_limit",
    "throttle",
    "concurrency",
    "singleton",
    "priority",
)

# The order in which a new arrival is judged, and what is held goes on.
ORDER: Final = (
    ("debounce, batch", "it joins the group of its key that is open: then it starts nothing"),
    ("singleton, skip", "it is dropped if the place of its key is taken"),
    ("rate_limit", "it is dropped if the rate of its key is used up"),
    ("singleton, cancel", "those before it with its key are cancelled"),
    ("debounce, batch", "it opens a group, and is held until that is closed"),
    ("throttle", "it is held until its turn"),
    ("concurrency, singleton", "it is held until it gets a place"),
    ("priority", "of those held for a place, and of those that wait for a worker, the higher"),
)


@attrs.frozen
class Pair:
    """Whether two parts go together: what it means then, or why they don't."""

    allowed: bool
    text: str


PAIRS: Final[dict[tuple[str, str], Pair]] = {
    ("debounce", "batch"): Pair(
        False, "both gather; write debounce with collect='all' and max_wait, or batch alone"
    ),
    ("debounce", "rate_limit"): Pair(
        True, "what opens a group is counted, what joins one isn't"
    ),
    ("debounce", "throttle"): Pair(True, "a closed group waits for its turn"),
    ("debounce", "concurrency"): Pair(True, "a closed group waits for a place"),
    ("debounce", "singleton"): Pair(
        True, "decided when the group opens: it takes the place, or cancels, from then on"
    ),
    ("debounce", "priority"): Pair(True, "the first activity's priority counts"),
    ("batch", "rate_limit"): Pair(
        False, "a batch would have gaps; write throttle, which delays whole batches"
    ),
    ("batch", "throttle"): Pair(True, "a closed batch waits for its turn"),
    ("batch", "concurrency"): Pair(True, "a closed batch waits for a place"),
    ("batch", "singleton"): Pair(
        False, "what was gathered would be lost; write concurrency with limit 1"
    ),
    ("batch", "priority"): Pair(True, "the first activity's priority counts"),
    ("rate_limit", "throttle"): Pair(True, "what isn't dropped waits for its turn"),
    ("rate_limit", "concurrency"): Pair(True, "what isn't dropped waits for a place"),
    ("rate_limit", "singleton"): Pair(
        True, "what is skipped isn't counted, and what is dropped cancels nothing"
    ),
    ("rate_limit", "priority"): Pair(True, "the rate knows no priority"),
    ("throttle", "concurrency"): Pair(True, "at its turn it gets a place, or waits for one"),
    ("throttle", "singleton"): Pair(
        True, "decided on arrival: it takes the place, or cancels, while it waits for its turn"
    ),
    ("throttle", "priority"): Pair(True, "turns go by arrival; at its turn priority counts"),
    ("concurrency", "singleton"): Pair(
        False, "singleton is concurrency with limit 1; write one of them"
    ),
    ("concurrency", "priority"): Pair(True, "the highest that waits gets the next place"),
    ("singleton", "priority"): Pair(True, "it counts once there is a place"),
}
