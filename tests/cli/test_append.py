"""`append`: good lines kept, bad ones told, nothing silently unfired; on real files too."""

import json
import os
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2].parent / "shared" / "data"
FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}
LIKE = {"type": "Like", "actor": "https://a.example/bob"}
NOTE = {"type": "Note", "actor": "https://a.example/cid"}

GITHUB = """
import triggerflow as tf

app = tf.App(store="sqlite:///github.db", entry_points=False)


def look(number):
    return number + 1


@app.flow
def pull(activity):
    return (yield tf.call(look, activity["object"]["number"]))


TYPES = ["github.pull_request.opened", "github.pull_request.closed"]
app.trigger("pulls", on=TYPES, start=pull)
"""


def data(name):
    path = DATA / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing")
        pytest.skip(f"{name} is not here")
    return path


def test_bad_lines_are_told_in_order_and_good_ones_kept(project):
    """Each bad line is told with number and reason, blank ones are skipped, status is 3."""
    name = project.lines(
        FOLLOW, "", "{bad", NOTE, '{"type": "Note"}', '{"type": "Note", "x": NaN}', "  "
    )
    result = project.run("append", name, status=3)
    assert result.stdout == (
        "2 activities appended, 0 duplicates, 2 firings, 2 instances started, 3 rejected\n"
    )
    told = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["line 3", "line 5", "line 6"]
    assert told[0].startswith("line 3: activity: not JSON at column 2: ")
    assert "activity.actor is missing" in told[1]
    assert "activity.x: NaN is not JSON" in told[2]


def test_appending_twice_fires_nothing_new(project):
    """The second time every line is a duplicate."""
    name = project.lines(FOLLOW, NOTE)
    project.run("append", name)
    assert project.json("append", name) == {
        "appended": 0,
        "duplicates": 2,
        "firings": 0,
        "firing_errors": 0,
        "outcomes": {},
        "deferred": 0,
        "started": 0,
        "rejected": [],
    }


def test_flows_are_left_to_workers_unless_asked(project):
    """Without --work nothing is driven; with it the summary tells how instances ended."""
    name = project.lines(FOLLOW, LIKE, NOTE)
    project.run("append", name)
    assert {each["status"] for each in project.json_lines("ps")} == {"running"}
    result = project.run("append", name, "--work")
    assert result.stdout.startswith("0 activities appended, 3 duplicates")
    for word in ("1 done", "1 failed", "1 waiting", "ValueError: no https://a.example/bob"):
        assert word in result.stdout
    failed = project.id_of("failing")
    last = result.stdout.splitlines()[-1]
    assert last == f"replay any of them: triggerflow --app shop replay {failed[:8]}"


def test_the_suggested_command_works(project):
    """The replay command at the end of the summary can be run as it stands."""
    result = project.run("append", project.lines(NOTE), "--work")
    words = result.stdout.splitlines()[-1].partition("triggerflow ")[2].split()
    assert "agrees with the store" in project.run(*words, app=None).stdout


def test_without_an_app_a_store_without_triggers_is_refused(project):
    """Nothing is appended where nothing would ever fire."""
    name = project.lines(FOLLOW)
    said = project.run("append", name, app=None, status=1).stderr
    assert "has no registered triggers: nothing would ever fire" in said
    assert "--app" in said
    assert not (project.path / "triggerflow.db").exists()


def test_without_an_app_the_stores_triggers_are_met_by_a_worker(project):
    """A store with triggers takes the activities, and a worker fires them."""
    project.run("append", project.lines(NOTE))
    name = project.lines(FOLLOW, {**NOTE, "n": 2}, name="more.jsonl")
    result = project.run("--store", "sqlite:///shop.db", "append", name, app=None)
    assert "3 registered triggers of this store" in result.stderr
    assert "2 activities appended, 0 duplicates, 0 firings" in result.stdout
    assert "2 left to a worker" in result.stdout
    assert len(project.json_lines("ps")) == 1
    project.run("run", "--until-idle")
    found = {(each["flow"], each["status"]) for each in project.json_lines("ps")}
    assert found == {("simple", "done"), ("welcome", "waiting")}


def test_an_app_without_triggers_is_warned_about(project):
    """Appending with an app that has no triggers says so."""
    project.write("import triggerflow as tf\napp = tf.App(entry_points=False)\n", "bare")
    result = project.run("append", project.lines(NOTE), app="bare")
    assert "warning: the app has no triggers" in result.stderr
    assert "1 activity appended" in result.stdout


def test_stdin_is_read_with_a_dash(project):
    """`append -` takes its lines from stdin."""
    result = project.run("append", "-", input=json.dumps(NOTE) + "\n")
    assert result.stdout.startswith("1 activity appended")


def test_a_missing_file_is_one_error(project):
    """A file that can't be read is told by name."""
    assert project.run("append", "gone.jsonl", status=1).stderr.startswith(
        "error: gone.jsonl: "
    )


def test_an_endless_line_is_skipped(project):
    """A line beyond every limit is told and skipped, and the next one is read."""
    name = project.lines(NOTE, "[" + "1," * (4 * 1024 * 1024) + "1]", FOLLOW)
    result = project.run("append", name, status=3)
    assert result.stderr.startswith("line 2: longer than ")
    assert result.stdout.startswith("2 activities appended")


def test_the_github_file_twice(project):
    """164 real webhooks: all appended, matching ones fired once, the second time nothing."""
    file = data("github-webhooks.jsonl")
    project.write(GITHUB, "github")
    matching = sum(
        json.loads(line)["type"] in ("github.pull_request.opened", "github.pull_request.closed")
        for line in file.read_text().splitlines()
    )
    assert matching
    first = project.json("append", str(file), "--work", app="github")
    assert (first["appended"], first["firings"], first["rejected"]) == (164, matching, [])
    assert first["statuses"] == {"done": matching}
    again = project.json("append", str(file), app="github")
    assert (again["appended"], again["duplicates"], again["firings"]) == (0, 164, 0)


def test_the_activitystreams_examples(project):
    """141 odd documents: 20 are activities, each other one is rejected with its line."""
    lines = data("activitystreams2-examples.jsonl").read_text().splitlines()
    documents = [json.loads(line)["document"] for line in lines]
    found = project.json("append", project.lines(*documents), status=3)
    assert found["appended"] + found["duplicates"] + len(found["rejected"]) == len(documents)
    assert len(found["rejected"]) == 121
    numbers = [each["line"] for each in found["rejected"]]
    assert numbers == sorted(numbers)
    assert all(each["reason"].startswith("activity rejected by") for each in found["rejected"])
