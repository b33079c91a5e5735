"""Queues on the command line: workers that serve them, and what is told of them."""

import importlib
import json
import signal

import pytest

STUDIO = """
import pathlib
import sys
import threading

import triggerflow as tf

app = tf.App(store="sqlite:///studio.db", entry_points=False)


@app.step
def render(scene):
    attempt = tf.step_context().attempt
    with pathlib.Path("ran.txt").open("a") as ran:
        ran.write(f"{scene} {attempt}\\\\n")
    print("begun", attempt, flush=True)
    if scene == "hangs" and attempt == 1:
        threading.Event().wait(60)
    if scene == "fails":
        raise OSError(scene)
    return f"{scene}, rendered"


@app.flow
def film(scene):
    call = tf.call(render, scene).using(queue="gpu", retry=tf.RetryPolicy(initial=3600))
    return (yield call)
""".replace("\\\\n", "\\n")


@pytest.fixture
def studio(project, monkeypatch):
    """A project whose flow has its pictures rendered on the queue `gpu`."""
    project.write(STUDIO, "studio")
    monkeypatch.syspath_prepend(project.path)
    return project


def run(studio, *words, **more):
    return studio.run(*words, app="studio", **more)


def read(studio, *words, **more):
    out = run(studio, *words, "--json", **more).stdout
    # The step prints too.
    return json.loads(out[out.index("{") :])


def test_a_worker_that_serves_no_queue_leaves_them(studio):
    """Without --queue the call waits; with it, it runs, and the flow ends."""
    run(studio, "start", "film", "--input", '"sea"')
    assert "1 waiting" in run(studio, "run", "--until-idle").stdout
    out = run(studio, "run", "--until-idle", "--queue", "gpu", "--queue", "cpu").stdout
    assert "serves gpu, cpu" in out
    assert "1 done" in out


def test_a_worker_may_serve_queues_alone(studio):
    """With --only-queues it runs the call and drives no flow, even one that it knows."""
    run(studio, "start", "film", "--input", '"sea"')
    alone = ("run", "--until-idle", "--queue", "gpu", "--only-queues")
    assert "1 running" in run(studio, *alone).stdout
    run(studio, "run", "--until-idle")
    found = read(studio, *alone)
    assert (found["ended"]["done"], found["left"]["running"]) == (0, 1)
    assert "1 done" in run(studio, "run", "--until-idle").stdout
    assert (studio.path / "ran.txt").read_text() == "sea 1\n"


def test_only_queues_without_a_queue_is_wrong_usage(studio):
    """A worker for nothing is refused."""
    found = run(studio, "run", "--only-queues", status=2)
    assert "--only-queues needs a --queue" in found.output


def test_a_queued_call_is_shown_as_such(studio):
    """`ps` and `show` name its queue and how it stands there."""
    run(studio, "start", "film", "--input", '"fails"')
    run(studio, "run", "--until-idle")
    assert "call:render#0 on queue gpu" in run(studio, "ps").stdout
    (listed,) = [json.loads(line) for line in run(studio, "ps", "--json").stdout.splitlines()]
    assert "queue gpu, ready" in run(studio, "show", listed["id"]).stdout
    (pending,) = read(studio, "show", listed["id"])["pending"]
    assert (pending["task"]["queue"], pending["task"]["attempt"]) == ("gpu", 0)
    run(studio, "run", "--until-idle", "--queue", "gpu")
    assert "queue gpu, ready, due in" in run(studio, "show", listed["id"]).stdout
    (pending,) = read(studio, "show", listed["id"])["pending"]
    assert (pending["task"]["state"], pending["task"]["attempt"]) == ("ready", 1)
    assert pending["attempts"] == 1


def test_doctor_names_what_nobody_serves(studio):
    """Tasks without a living worker for queue and step are an error, with the remedy."""
    for scene in ("sea", "sky", "sun"):
        run(studio, "start", "film", "--input", json.dumps(scene))
    run(studio, "run", "--until-idle")
    out = " ".join(run(studio, "doctor", status=1).stdout.split())
    assert "3 tasks of step 'render' on queue 'gpu': no live worker serves it" in out
    assert "triggerflow run --queue gpu" in out
    shop = importlib.import_module("studio")
    with shop.app.client(queues=["cpu"]):
        assert "no live worker serves it" in run(studio, "doctor", status=1).stdout
    run(studio, "run", "--until-idle", "--queue", "gpu")
    run(studio, "doctor")


def test_a_killed_worker_of_a_queue_loses_nothing(studio):
    """SIGKILL in the midst of a step: another worker runs it again, the result is one."""
    words = ("--app", "studio", "run", "--queue", "gpu", "--only-queues")
    module = importlib.import_module("studio")
    with module.app.client() as client:
        id = client.start("film", "hangs")
        worker = studio.spawn(*words)
        assert "serves gpu" in worker.stdout.readline()
        assert worker.stdout.readline() == "begun 1\n"
        (task,) = client.tasks()
        assert (task.state, task.attempt) == ("running", 1)
        out = run(studio, "doctor").stdout
        assert "serves gpu and runs 1 task" in " ".join(out.split())
        worker.send_signal(signal.SIGKILL)
        worker.communicate(timeout=20)
        second = studio.spawn(*words)
        done = client.wait(id, timeout=40)
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=20)
        assert done.result == "hangs, rendered"
        assert [entry.tag for entry in client.log(id)] == ["call:render#0"]
        assert client.tasks() == ()
    assert (studio.path / "ran.txt").read_text() == "hangs 1\nhangs 2\n"
