"""`doctor`: each finding with its remedy, and a status that scripts can trust."""

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
