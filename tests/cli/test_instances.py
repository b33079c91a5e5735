"""`start, ps, show, signal, cancel, retry, triggers, flows`: what they print and keep."""

import importlib

import pytest

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}
LIKE = {"type": "Like", "actor": "https://a.example/bob"}
NOTE = {"type": "Note", "actor": "https://a.example/cid"}


@pytest.fixture
def driven(project):
    """A project with a waiting, a failed and a done instance."""
    project.run("append", project.lines(FOLLOW, LIKE, NOTE), "--work")
    return project


def test_ps_lists_the_newest_first(driven):
    """One line an instance, newest first, with what it waits for or came to."""
    lines = driven.run("ps").stdout.splitlines()
    assert lines[0].split()[:4] == ["id", "flow", "status", "age"]
    assert [line.split()[1] for line in lines[1:]] == ["simple/1", "failing/1", "welcome/1"]
    assert "wait_signal:reply#0" in lines[3]
    assert "ValueError: no https://a.example/bob today" in lines[2]


def test_ps_can_be_narrowed(driven):
    """Status, flow and limit choose; what is left out is said on stderr."""
    assert len(driven.json_lines("ps", "--status", "failed")) == 1
    assert len(driven.json_lines("ps", "--flow", "simple")) == 1
    result = driven.run("ps", "--limit", "2")
    assert len(result.stdout.splitlines()) == 3
    assert "more with --limit N or --all" in result.stderr
    assert len(driven.json_lines("ps", "--all")) == 3
    assert "no instance" in driven.run("ps", "--status", "blocked").stderr


def test_ps_can_be_narrowed_by_origin_and_time(driven):
    """Namespace, correlation, parent, several statuses and times choose, in either order."""
    with importlib.import_module("shop").app.client(work=False) as client:
        ids = [
            client.start("simple", n, namespace="shop", correlation_id=f"order-{n}")
            for n in range(2)
        ]

    def found(*words):
        return [row["id"] for row in driven.json_lines("ps", *words)]

    assert found("--namespace", "shop") == ids[::-1]
    assert found("--namespace", "shop", "--oldest") == ids
    assert found("--correlation", "order-1") == ids[1:]
    assert found("--parent", ids[0][:8]) == []
    assert len(found("--status", "failed", "--status", "done")) == 2
    assert len(found("--after", "1h")) == 5
    assert found("--before", "1h") == []
    assert found("--after", "2026-01-01", "--before", "2026-01-02T12:00:00Z") == []
    assert "an age such as 90m" in driven.run("ps", "--after", "soon", status=2).stderr
    assert "no instance 'zz'" in driven.run("ps", "--parent", "zz", status=1).stderr


def test_what_is_held_is_told(project):
    """`ps`, `show`, `append`: what isn't admitted yet, what joined it, what was dropped."""
    once = {"limit": 1, "period": 1000}
    more = "".join(
        f"app.trigger({kind.lower()!r}, on={kind!r}, start=simple, control={control!r})\n"
        for kind, control in (
            ("Bounce", {"debounce": {"period": 900, "key": "$.k"}}),
            ("Turn", {"throttle": once}),
            ("Place", {"concurrency": {"limit": 1, "key": "$.k"}}),
            ("Rate", {"rate_limit": once, "priority": 7}),
        )
    )
    last = 'app.trigger("note", on="Note", start=simple)\n'
    project.change(last, last + more)
    lines = [
        {"type": kind, "actor": "ann", "n": n, "k": "blog"}
        for kind in ("Bounce", "Turn", "Place", "Rate")
        for n in range(2)
    ]
    told = project.run("append", project.lines(*lines)).stdout
    assert "8 firings" in told
    assert "6 instances started" in told
    assert "1 joined one that is held" in told
    assert "1 over a limit" in told
    listed = project.run("ps").stdout
    assert 'debounce of the key "blog", due in 1' in listed
    assert "throttle, due in 16 min" in listed
    assert 'a place of the concurrency key "blog"' in listed
    held = [row["held"] and row["held"]["kind"] for row in project.json_lines("ps")]
    assert sorted(filter(None, held)) == ["debounce", "place", "throttle"]
    (rate,) = [row for row in project.json_lines("ps") if row["trigger"] == "rate"]
    assert "priority" in project.run("show", rate["id"][:8]).stdout
    (one,) = [row for row in project.json_lines("ps") if row["trigger"] == "bounce"]
    assert "held for" in project.run("show", one["id"][:8]).stdout


def test_show_tells_everything(driven):
    """Trigger, activity, input, pending tags and the log stand in `show`."""
    out = driven.run("show", driven.id_of("welcome")[:6]).stdout
    for word in ("follow", "bafyrei", '["Follow"]', "wait_signal:reply#0", "call:send#0"):
        assert word in out
    found = driven.json("show", driven.id_of("failing"))
    assert found["failure"]["type"] == "StepFailed"
    assert [entry["tag"] for entry in found["log"]] == ["call:look_up#0", "call:refuse#0"]


def test_show_tells_what_a_step_said_of_its_progress(project):
    """The last heartbeat of a pending call stands beside it, as text and as JSON."""
    project.change(
        'return {"email": f"mail:{actor}", "tries": 3}',
        'tf.step_context().heartbeat({"rows": 600})\n    raise tf.RetryAfter(tf.days(1))',
    )
    project.change(
        'activity["actor"]))\n', 'activity["actor"]).using(retry=tf.RetryPolicy()))\n'
    )
    project.run("append", project.lines(NOTE), "--work")
    out = project.run("show", project.id_of("simple")).stdout
    assert '{"rows": 600}' in out
    (pending,) = project.json("show", project.id_of("simple"))["pending"]
    assert pending["progress"]["details"] == {"rows": 600}


def test_show_without_the_app(driven):
    """What the store has can be looked at without the code."""
    found_id = driven.id_of("simple")
    words = ("--store", "sqlite:///shop.db", "show", found_id)
    assert driven.json(*words, app=None)["result"]["tries"] == 3


def test_show_says_why_it_is_blocked(driven):
    """A blocked instance shows cause, reason and what to do."""
    driven.run("start", "elsewhere", "--input", "1", app=None, status=1)
    words = ("--store", "sqlite:///shop.db", "start", "elsewhere", "--input", "1")
    result = driven.run(*words, app=None)
    assert "blocked: " in result.stderr
    out = driven.run("show", driven.id_of("elsewhere")).stdout
    assert "blocked: unknown_flow" in out
    assert "what to do:    run a worker whose app registers this flow" in out


def test_a_signal_is_kept_until_it_is_taken(driven):
    """A signal shows as unread, and a worker takes it."""
    found_id = driven.id_of("welcome")
    assert driven.run("signal", found_id[:7], "reply", '{"yes": true}').stdout.startswith(
        f"signal reply stored for {found_id}"
    )
    assert driven.json("show", found_id)["inbox"][0]["payload"] == {"yes": True}
    assert "1 done" in driven.run("run", "--until-idle").stdout
    assert driven.json("show", found_id)["result"]["reply"] == {"yes": True}


def test_a_repeated_signal_is_dropped(driven):
    """Equal dedup keys and payloads count once."""
    found_id = driven.id_of("welcome")
    assert driven.json("signal", found_id, "x", "1", "--dedup", "k")["stored"] is True
    assert driven.json("signal", found_id, "x", "1", "--dedup", "k")["stored"] is False
    said = driven.run("signal", found_id, "x", "2", "--dedup", "k", status=1).stderr
    assert said.startswith("error: signal 'x' to ")


def test_cancel_and_retry_refuse_what_has_ended_well(driven):
    """Verbs that don't fit the status are one error."""
    done = driven.id_of("simple")
    assert "has ended (done)" in driven.run("cancel", done, status=1).stderr
    assert "retry of instance" in driven.run("retry", done, status=1).stderr


def test_ids_must_be_known_and_unique(driven):
    """An unknown prefix and one that fits several are told apart, the several listed."""
    ids = [driven.json("start", "simple", "--input", '{"actor": "a"}')["id"] for _ in range(40)]
    twice = next(one[0] for one in ids if sum(each[0] == one[0] for each in ids) > 1)
    assert "fits several: " in driven.run("show", twice, status=1).stderr
    assert "no instance 'zzzzzz9'" in driven.run("show", "zzzzzz9", status=1).stderr
    assert "no instance ''" in driven.run("show", "", status=1).stderr


def test_start_and_wait(project):
    """--wait with --work drives it here and shows the result; failing gives status 1."""
    out = project.run("start", "simple", "--input", '{"actor": "a"}', "--wait", "--work").stdout
    assert 'done: {"email": "mail:a", "tries": 3}' in out
    words = ("start", "failing", "--input", '{"actor": "a"}', "--wait", "--work")
    out = project.run(*words, status=1).stdout
    assert "failed: StepFailed: step 'refuse' failed: ValueError: no a today" in out
    assert "replay it: triggerflow --app shop replay " in out


def test_a_wait_that_gives_up_says_that_it_goes_on(project):
    """--timeout ends the waiting, not the instance."""
    words = ("start", "welcome", "--input", '{"actor": "a"}', "--wait", "--timeout", "0.01")
    result = project.run(*words, status=1)
    assert "no worker is alive" in result.stderr
    assert "it goes on" in result.stderr


def test_a_key_is_held_by_one(project):
    """An equal start under one key gives the first id; another input is refused."""
    words = ("start", "welcome", "--key", "k", "--input")
    first = project.json(*words, '{"actor": "a"}')["id"]
    assert project.json(*words, '{"actor": "a"}')["id"] == first
    assert "is held by instance" in project.run(*words, '{"actor": "b"}', status=1).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start", "simple", "--input", "hello"), "a text needs its quotes"),
        (("start", "simple", "--input", '{"a": 1, "a": 2}'), "duplicate key"),
        (("ps", "--status", "odd"), "'odd' is not one of"),
        (("shwo", "x"), "Did you mean show"),
        (("ps", "--limit", "0"), "0 is not in the range"),
    ],
)
def test_wrong_usage_is_status_2(project, words, said):
    """What is called wrongly says so and exits with 2."""
    assert said in project.run(*words, status=2).stderr


def test_a_misspelt_flow_is_not_started(project):
    """With an app, a flow that it lacks is refused with the nearest names."""
    assert "did you mean 'simple'" in project.run("start", "simpel", status=1).stderr


def test_triggers_and_flows(driven):
    """Both list what the app has, triggers with their state in the store."""
    out = driven.run("triggers").stdout.splitlines()
    assert out[1].split()[:5] == ["follow", "Follow", "starts", "welcome", "active"]
    found = {each["flow"]: each for each in driven.json_lines("flows")}
    assert found["simple"]["triggers"] == ["note"]
    assert found["simple"]["location"].rpartition("/")[2].startswith("shop.py:")
    words = ("--store", "sqlite:///shop.db", "triggers")
    assert len(driven.json_lines(*words, app=None)) == 3
    assert "flows are code; name the app" in driven.run("flows", app=None, status=1).stderr


def test_new_triggers_are_listed_before_there_is_a_store(project):
    """What the app defines can be seen before anything was opened."""
    assert [each["state"] for each in project.json_lines("triggers")] == ["new"] * 3
