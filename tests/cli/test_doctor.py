"""`doctor`: each finding with its remedy, and a status that scripts can trust."""

import contextlib
import sqlite3

import triggerflow as tf

NOTE = {"type": "Note", "actor": "https://a.example/cid"}
LIKE = {"type": "Like", "actor": "https://a.example/bob"}


def levels(found):
    return {each["what"]: (each["level"], each["remedy"]) for each in found["findings"]}


def test_a_healthy_store(project):
    """Nothing wrong: status 0, with the counts."""
    project.run("append", project.lines(NOTE), "--work")
    out = project.run("doctor").stdout
    assert "1 activity, 1 firing, 1 instance (1 done), 0 unread messages" in out
    assert "no worker is alive, and nothing is runnable" in out


def test_a_store_that_cannot_be_reached(project):
    """No file, and one that is no database, are errors with status 1."""
    assert "there is no such file yet" in project.run("doctor", status=1).stdout
    (project.path / "shop.db").write_text("this is no database, and long enough to tell" * 50)
    assert "can't be opened" in project.run("doctor", status=1).stdout


def test_runnable_without_a_worker(project):
    """Runnable instances that nobody drives are an error, and a worker the remedy."""
    project.run("append", project.lines(NOTE))
    out = project.run("doctor", status=1).stdout
    assert "error" in out
    assert "no worker is alive: triggerflow run" in out
    project.run("run", "--until-idle")
    project.run("doctor")


def test_deferred_without_a_worker(project):
    """A backlog in the outbox is an error while no worker lives."""
    project.run("append", project.lines(NOTE), "--work")
    more = project.lines({**NOTE, "n": 1}, name="more.jsonl")
    project.run("--store", "sqlite:///shop.db", "append", more, app=None)
    found = levels(project.json("doctor", status=1))
    assert found["1 dispatch deferred in the outbox"][0] == "error"


def test_blocked_and_unknown(project):
    """Blocked instances are counted by cause, runnable ones of unknown flows are named."""
    project.run("append", project.lines(NOTE, LIKE))
    project.run("--store", "sqlite:///shop.db", "start", "elsewhere", app=None)
    project.change("@app.flow\ndef simple", "@app.flow(version=2)\ndef simple")
    found = project.json("doctor", status=1)
    words = " | ".join(levels(found))
    assert "1 instance blocked, unknown_flow (" in words
    assert "1 instance of simple/1 runnable, which this app doesn't know" in words


def test_failed_instances_are_a_warning(project):
    """Failures are the user's business: told, and no error."""
    project.run("append", project.lines(LIKE), "--work")
    found = levels(project.json("doctor"))
    assert found["1 instance failed"][0] == "warning"


def test_waits_that_cannot_be_read_are_named(project):
    """A stored pattern of a newer version, or broken, is an error with a remedy."""
    project.change(
        '    reply = yield tf.wait_signal("reply")\n',
        '    reply = yield tf.wait_activity({"type": ["Reply"]})\n',
    )
    project.run("append", project.lines({**LIKE, "type": "Follow"}), "--work")
    assert "can't be read" not in project.run("doctor").stdout
    newer = tf.App(entry_points=False).codec.encode({"type": [{"sounds-like": "Reply"}]})
    with contextlib.closing(sqlite3.connect(project.path / "shop.db")) as db, db:
        db.execute("UPDATE wait SET pattern = ?", (newer,))
    found = levels(project.json("doctor", status=1))
    ((words, (level, remedy)),) = (each for each in found.items() if "be read" in each[0])
    assert level == "error"
    assert words.startswith("1 wait for activities can't be read (wait_activity#0 of instance")
    assert "sounds-like" in words
    assert "newer triggerflow" in remedy
