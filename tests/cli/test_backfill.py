"""Backfills, redispatch and the states of triggers on the command line."""

import signal

LATE = """
app.trigger("late", on="Note", start=simple, version=2)


def moody(document):
    import pathlib

    if pathlib.Path("broken").exists():
        raise OSError("no network")
    return True


app.trigger("moody", on="Move", start=simple, guard=moody)
"""


def note(n, type="Note"):
    return {"type": type, "actor": "https://a.example/cid", "n": n}


def later(project):
    """The app with triggers that are new."""
    source = (project.path / "shop.py").read_text()
    project.write(source + LATE)


def test_a_backfill_of_a_new_trigger(project):
    """--dry-run counts, --work does it; a second one finds all of it known."""
    project.run("append", project.lines(*[note(n) for n in range(5)]))
    later(project)
    dry = project.run("backfill", "late", "--dry-run").stdout
    assert dry == "dry run: 5 activities looked at, 5 would fire\n"
    assert project.json_lines("backfills") == []
    done = project.run("backfill", "late", "--since", "2", "--until", "3", "--work").stdout
    assert done == "backfill 1 done: 2 activities looked at, 2 fired\n"
    found = project.json("backfill", "late", "--work")
    assert (found["looked"], found["fired"], found["known"]) == (5, 3, 2)
    assert (found["state"], found["share"]) == ("done", 1.0)
    listed = project.run("backfills").stdout.splitlines()
    assert listed[0].split()[:4] == ["id", "kind", "trigger", "state"]
    assert listed[2].split()[:5] == ["2", "backfill", "late", "done", "100%"]
    # Half of them were started by the trigger that was there before.
    assert len(project.json_lines("ps", "--flow", "simple", "--status", "done")) == 10


def test_without_a_worker_it_says_so(project):
    """The backfill stands in the store; whoever works next goes through it."""
    project.run("append", project.lines(note(1)))
    later(project)
    found = project.run("backfill", "late")
    assert "no worker runs" in found.stderr
    assert found.stdout.startswith("backfill 1 running: 0 activities")
    assert project.run("backfills", "pause", "1").stdout.startswith("backfill 1 paused")
    assert project.run("backfills", "resume", "1").stdout.startswith("backfill 1 run")
    assert project.run("backfills", "cancel", "1").stdout.startswith("backfill 1 can")
    (row,) = project.json_lines("backfills")
    assert (row["state"], row["reason"]) == ("cancelled", "it was cancelled")
    assert "none of this id" in project.run("backfills", "pause", "7", status=1).output


def test_places_and_names_that_are_none(project):
    """A bad place is wrong usage, an unknown name an error with the nearest ones."""
    project.run("append", project.lines(note(1)))
    for place in ("soon", "2026-01-01T00:00:00", "-3", "latest"):
        found = project.run("backfill", "note", "--since", place, status=2)
        assert "sequence number" in found.output
    found = project.run("backfill", "nott", status=1)
    assert "did you mean 'note'" in found.output
    since = "2026-01-01T00:00:00Z"
    assert project.json("backfill", "note", "--since", since, "--dry-run")["known"] == 1


def test_pausing_resuming_draining(project):
    """The state is listed; what was paused is taken up by the next worker, or dropped."""
    project.run("append", project.lines(note(0)))
    assert project.run("triggers", "pause", "note").stdout == "paused: note\n"
    states = {row["name"]: row["state"] for row in project.json_lines("triggers")}
    assert states == {"follow": "active", "like": "active", "note": "paused"}
    project.run("append", project.lines(note(1), note(2)))
    assert len(project.json_lines("ps", "--flow", "simple")) == 1
    found = project.run("triggers", "resume", "note")
    assert found.stdout == "active: note\n"
    project.run("append", "--work", project.lines(note(3)))
    assert len(project.json_lines("ps", "--flow", "simple")) == 4
    project.run("triggers", "pause", "note")
    project.run("append", project.lines(note(4)))
    project.run("triggers", "resume", "note", "--skip")
    assert project.run("triggers", "drain", "note").stdout == "draining: note\n"
    assert "draining" in project.run("triggers").stdout
    project.run("append", "--work", project.lines(note(5)))
    assert len(project.json_lines("ps", "--flow", "simple")) == 4
    assert "not current" in project.run("triggers", "pause", "nott", status=1).output


def test_redispatch(project):
    """Failed firings go again once their cause is mended; --dry-run asks the guards only."""
    later(project)
    (project.path / "broken").touch()
    project.run("append", project.lines(*[note(n, "Move") for n in range(3)]))
    found = project.run("redispatch", "--dry-run").stdout
    assert found == "3 firings would be dispatched again: 3 guard_error\n"
    (project.path / "broken").unlink()
    assert project.json("redispatch", "--limit", "1") == {
        "looked": 1,
        "outcomes": {"started": 1},
    }
    found = project.run("redispatch", "--trigger", "moody").stdout
    assert found == "2 firings dispatched again: 2 started\n"
    assert project.run("redispatch").stdout == "0 firings dispatched again\n"
    refused = project.run("redispatch", "--outcome", "started", status=1)
    assert "expected some of" in refused.output


def test_it_is_followed_while_a_worker_goes_through_it(project):
    """The command waits for the end, which another process brings."""
    project.run("append", project.lines(*[note(n) for n in range(50)]))
    later(project)
    worker = project.spawn("--app", "shop", "run")
    try:
        assert worker.stdout.readline().startswith("store ")
        found = project.json("backfill", "late")
        assert (found["state"], found["fired"]) == ("done", 50)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=60)
