"""The app that the children of several tests run: triggers on GitHub webhooks, small flows.

What fires for which webhook is said a second time, in plain Python, in `plainly.py`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import triggerflow as tf

TYPES = [
    "github.push",
    "github.issues.edited",
    "github.pull_request.labeled",
    "github.check_run.completed",
    "github.release.published",
]
REPOSITORIES = ["octo-org/octo-repo", "Octocoders/Hello-World"]
ACTIONS = ["created", "opened", "completed"]


def say(word: str, value: str = "") -> None:
    """One line to the parent, in one write: what was said survives a SIGKILL."""
    os.write(1, f"{word} {value}".rstrip().encode() + b"\n")


def hear() -> str:
    """The parent's next command; "" once it is gone."""
    return sys.stdin.readline().strip()


class Effects:
    """A file that every run of a step adds one line to, as the world outside would know it."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if path else -1

    def note(self, dies_in: str = "") -> None:
        if self._fd >= 0:
            at = tf.step_context()
            line = f"{at.instance} {at.tag} {at.attempt} {os.getpid()}\n"
            os.write(self._fd, line.encode())
            if at.tag == dies_in:
                os.kill(os.getpid(), signal.SIGKILL)


def person(activity: dict[str, Any]) -> bool:
    """A guard: whether a person sent it."""
    return activity["object"].get("sender", {}).get("type") == "User"


def make(store: object, effects: str = "", dies_in: str = "") -> tf.App:
    """The app; `effects` names the file of side effects, `dies_in` a tag of a deadly step."""
    app = tf.App(store=store, entry_points=False)  # type: ignore[arg-type]
    world = Effects(effects)

    def first(kind: str) -> str:
        world.note(dies_in)
        return kind

    def second(before: str, number: int) -> list[Any]:
        world.note(dies_in)
        return [before, number]

    def third(before: list[Any]) -> dict[str, Any]:
        world.note(dies_in)
        return {"after": before}

    async def left(kind: str) -> str:
        world.note(dies_in)
        return kind + "!"

    def right(kind: str) -> str:
        world.note(dies_in)
        return kind + "?"

    @app.flow
    def three(activity: dict[str, Any]) -> Any:
        one = yield tf.call(first, activity["type"])
        two = yield tf.call(second, one, 2)
        return (yield tf.call(third, two))

    @app.flow
    def fan(activity: dict[str, Any]) -> Any:
        both = yield tf.gather(
            tf.call(left, activity["type"]), tf.call(right, activity["actor"])
        )
        return (yield tf.call(third, both))

    @app.flow
    def nap(activity: dict[str, Any]) -> Any:
        one = yield tf.call(first, activity["type"])
        yield tf.sleep(0.005)
        return (yield tf.call(second, one, 3))

    @app.flow
    def asks(activity: dict[str, Any]) -> Any:
        answer = yield tf.wait_signal("answer", timeout=0.005, default="none")
        return (yield tf.call(first, answer))

    app.trigger("every", on="*", start=three)
    app.trigger("acted", on="*", match={"object": {"action": ACTIONS}}, start=fan)
    app.trigger("listed", on=TYPES, start=nap)
    app.trigger("people", on="*", actors=["https://github.com/o*"], guard=person, start=three)
    app.trigger(
        "repos",
        on="*",
        match={"object": {"repository": {"full_name": REPOSITORIES}}},
        start=asks,
    )
    return app


def finish(client: tf.Client) -> None:
    """Drive until everything has ended, near timers included."""
    client.run_until_idle()
    # One listing: between one of those that run and one of those that wait, a timer may
    # fire, and its instance would be in neither.
    for each in client.instances():
        if each.status in ("running", "waiting"):
            client.wait(each.id, timeout=30)
