"""`replay`: every effect with its place, and a verdict that can be trusted."""

import pytest

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}
LIKE = {"type": "Like", "actor": "https://a.example/bob"}
NOTE = {"type": "Note", "actor": "https://a.example/cid"}

APP = (
    "import triggerflow as tf\n\napp = tf.App(store='sqlite:///shop.db', entry_points=False)\n"
)


@pytest.fixture
def driven(project):
    """A project with a waiting, a failed and a done instance."""
    project.run("append", project.lines(FOLLOW, LIKE, NOTE), "--work")
    return project


def line_of(project, text):
    source = (project.path / "shop.py").read_text().splitlines()
    return next(number for number, line in enumerate(source, 1) if text in line)


def test_a_row_for_each_effect(driven):
    """Position, tag, place of the yield, value and time, then what it waits for."""
    found = driven.json("replay", driven.id_of("welcome"))
    gather = f"{driven.path}/shop.py:{line_of(driven, 'tf.gather')}"
    rows = [(row["position"], row["tag"], row["value"]) for row in found["entries"]]
    assert rows[1:] == [
        (1, "call:send#0", "sent welcome to mail:https://a.example/ann"),
        (2, "gather#0[0]/call:send#0", "sent 1 to a"),
        (3, "gather#0[1]/call:send#0", "sent 2 to b"),
    ]
    assert [row["location"] for row in found["entries"][2:]] == [gather, gather]
    assert all(row["elapsed"] >= 0 for row in found["entries"])
    assert [wait["tag"] for wait in found["waiting"]] == ["wait_signal:reply#0"]
    assert found["outcome"] == {"kind": "suspended", "tags": ["wait_signal:reply#0"]}
    assert found["agrees"] is True


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ("welcome", "suspended on wait_signal:reply#0"),
        (
            "failing",
            "failed: StepFailed: step 'refuse' failed: ValueError: no https://a.example",
        ),
        ("simple", 'done: {"email": "mail:https://a.example/cid", "tries": 3}'),
    ],
)
def test_the_outcome_and_that_it_agrees(driven, flow, words):
    """The last two lines are the outcome and the verdict; paths are relative."""
    out = driven.run("replay", driven.id_of(flow)[:8]).stdout
    assert out.splitlines()[-2].startswith(words)
    assert out.splitlines()[-1] == "agrees with the store"
    assert " shop.py:" in out
    assert "\x1b" not in out


def test_locals_at_each_yield(driven):
    """--locals shows the generator's names and values as they were at each yield."""
    found = driven.json("replay", driven.id_of("welcome"), "--locals")
    names = [set(row["locals"]) for row in found["entries"]]
    assert names == [{"activity"}, *[{"activity", "profile"}] * 3]
    assert found["waiting"][0]["locals"]["first"] == "'sent 1 to a'"
    out = driven.run("replay", driven.id_of("welcome"), "--locals").stdout
    assert "first     = 'sent 1 to a'" in out


@pytest.mark.parametrize(
    ("old", "new", "position"),
    [
        ("tf.call(send, profile", "tf.call(look_up, profile", 1),
        ('"welcome")', '"hello")', 1),
        ('    yield tf.call(send, profile["email"], "welcome")\n', "", 1),
        ('tf.call(send, "b", "2")', 'tf.call(look_up, "b")', 3),
    ],
)
def test_changed_code_is_told_with_both_sides(driven, old, new, position):
    """A renamed, changed, removed or added step: where, both sides, status 4."""
    driven.change(old, new)
    result = driven.run("replay", driven.id_of("welcome"), status=4)
    assert f"diverged from its log at position {position}" in result.stdout
    assert "recorded:" in result.stdout
    assert "your code now:" in result.stdout
    assert "here the code goes another way" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("DISAGREES: ")
    found = driven.json("replay", driven.id_of("welcome"), status=4)
    assert (found["agrees"], found["problem"]["position"]) == (False, position)
    notes = [row["note"] for row in found["entries"]]
    assert (
        notes
        == [*[""] * position, "here the code goes another way", "not reached", "not reached"][
            :4
        ]
    )


def test_another_result_disagrees(driven):
    """A flow that takes the same steps and returns something else disagrees with the store."""
    driven.change("return (yield tf.call(look_up", "return 7, (yield tf.call(look_up")
    out = driven.run("replay", driven.id_of("simple"), status=4).stdout
    assert "DISAGREES: stored result {'email'" in out
    assert "your code now returns [7, " in out


def test_another_wait_disagrees(driven):
    """Other tags at the log's end are told, and that a worker may replace them."""
    driven.change('wait_signal("reply")', 'wait_signal("answer")')
    out = driven.run("replay", driven.id_of("welcome"), status=4).stdout
    assert "DISAGREES: stored waits for wait_signal:reply#0" in out
    assert "your code now for wait_signal:answer#0" in out


def test_a_retry_voids_the_failure_before_it(driven):
    """A voided failure and the retry that voids it are rows; the verdict counts both."""
    found_id = driven.id_of("failing")
    driven.run("retry", found_id)
    found = driven.json("replay", found_id)
    assert (found["remark"], found["agrees"]) == ("a retry waits to be taken", True)
    assert [wait["tag"] for wait in found["waiting"]] == ["call:refuse#0"]
    driven.change('raise ValueError(f"no {name} today")', 'return f"yes {name}"')
    driven.run("run", "--until-idle")
    found = driven.json("replay", found_id)
    rows = [(row["tag"], row["note"]) for row in found["entries"]]
    assert rows == [
        ("call:look_up#0", ""),
        ("call:refuse#0", "voided by retry"),
        ("retried", ""),
        ("call:refuse#0", ""),
    ]
    assert (found["status"], found["agrees"]) == ("done", True)


def test_a_cancelled_instance(driven):
    """A cancel is a row at the yield where it struck, and the outcome agrees."""
    found_id = driven.id_of("welcome")
    driven.run("cancel", found_id)
    driven.run("run", "--until-idle")
    found = driven.json("replay", found_id)
    last = found["entries"][-1]
    place = f"shop.py:{line_of(driven, 'wait_signal')}"
    assert (last["tag"], last["location"].rpartition("/")[2]) == ("cancel", place)
    assert (found["outcome"]["failure"]["kind"], found["agrees"]) == ("cancelled", True)


def test_a_blocked_instance_whose_code_is_right_says_so(driven):
    """Once the old code is back, replay of a blocked instance agrees and says what follows."""
    found_id = driven.id_of("welcome")
    driven.change('"welcome")', '"hello")')
    driven.run("signal", found_id, "reply", '"hi"')
    driven.run("run", "--until-idle")
    assert driven.json_lines("ps", "--status", "blocked")[0]["cause"] == "diverged"
    driven.change('"hello")', '"welcome")')
    found = driven.json("replay", found_id)
    assert (found["status"], found["agrees"]) == ("blocked", True)
    assert "this code can go on" in found["remark"]


def test_an_instance_that_no_turn_was_taken_of(project):
    """Before the first turn there is nothing to compare with, and replay says so."""
    project.run("append", project.lines(FOLLOW))
    found = project.json("replay", project.id_of("welcome"))
    assert (found["entries"], found["agrees"]) == ([], True)
    assert found["remark"].startswith("no turn was taken yet")


PATCHED = """
def look(x):
    return x


@app.flow
def fixed(x):
    one = yield tf.call(look, 1)
    if (yield tf.patched("first")):
        two = yield tf.call(look, 20)
    else:
        two = yield tf.call(look, 2)
    if (yield tf.patched("second")):
        three = yield tf.call(look, 30)
    else:
        three = yield tf.call(look, 3)
    yield tf.wait_signal("end")
    return [one, two, three]
"""

BEFORE = """
def look(x):
    return x


@app.flow
def fixed(x):
    one = yield tf.call(look, 1)
    two = yield tf.call(look, 2)
    three = yield tf.call(look, 3)
    yield tf.wait_signal("end")
    return [one, two, three]
"""

BETWEEN = PATCHED.replace('(yield tf.patched("second"))', "False")


@pytest.mark.parametrize(
    ("before", "values"),
    [(PATCHED, [1, 20, 30]), (BEFORE, [1, 2, 3]), (BETWEEN, [1, 20, 3])],
)
def test_patched_decides_as_the_log_says(project, before, values):
    """Each decision is the one of the whole log: yes, no, and yes then no."""
    project.write(APP + before)
    project.run("start", "fixed", "--work")
    project.write(APP + PATCHED)
    found = project.json("replay", project.id_of("fixed"))
    assert found["agrees"] is True
    calls = [row for row in found["entries"] if row["tag"].startswith("call:")]
    assert [row["value"] for row in calls] == values
    assert all(row["location"] for row in calls)
    marks = [row for row in found["entries"] if row["tag"].startswith("patched:")]
    assert {row["note"] for row in marks} <= {"recorded by the drive"}
    assert len(marks) == sum(value > 9 for value in values)


def test_a_flow_that_the_app_lacks(driven):
    """An instance of an unknown flow is one error that names those which are known."""
    driven.change("@app.flow\ndef simple", "@app.flow(version=2)\ndef simple")
    said = driven.run("replay", driven.id_of("simple"), status=1).stderr
    assert "runs flow simple/1, which this app doesn't have" in said
    assert "failing/1, simple/2, welcome/1" in said


def test_replay_needs_an_app(driven):
    """Without an app there is no code to drive."""
    said = driven.run("--store", "sqlite:///shop.db", "replay", "x", app=None, status=1).stderr
    assert said.startswith("error: replay drives a flow's code; name the app with --app")


def test_replay_writes_nothing(driven):
    """No worker is registered, no trigger is made current, nothing is driven."""
    driven.change('on="Note"', 'on="Memo"')
    before = driven.json("doctor")
    driven.run("replay", driven.id_of("welcome"))
    after = driven.json("doctor")
    assert after["counts"] == before["counts"]
    assert after["workers"] == []
    assert {each["state"] for each in driven.json_lines("triggers")} == {
        "active",
        "new",
        "store only",
    }


def test_a_terminated_instance_agrees(driven):
    """What was terminated has no outcome of its own; its log is what is compared."""
    found = driven.id_of("welcome")
    assert driven.run("terminate", found[:8], "--reason", "test").stdout.startswith(found)
    out = driven.run("replay", found).stdout
    assert out.splitlines()[-1] == "agrees with the store"
    assert "cancelled" in driven.run("show", found).stdout
