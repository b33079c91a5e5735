"""The command line as a process: entry, signals, pipes, terminals, plugins."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

NOTE = {"type": "Note", "actor": "https://a.example/cid"}
FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}


def output(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_help_and_version_load_nothing_heavy(project):
    """Help needs neither event loop nor database nor tables, and names every exit status."""
    code = (
        "import sys\nfrom triggerflow.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "print([m for m in ('trio', 'rich', 'sqlite3', 'cbor2', 'pluggy') if m in sys.modules])"
    )
    process = project.spawn("--version")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=project.path,
        env=environment,
        check=True,
    ).stdout
    assert "Exit status: 0 fine" in found
    assert found.splitlines()[-1] in ("[]", "['pluggy']")
    code, out, _ = output(process)
    assert (code, out.split()[0]) == (0, "triggerflow")


def test_append_run_and_replay_in_processes_of_their_own(project):
    """What one process appends another drives and a third replays."""
    name = project.lines(NOTE, FOLLOW)
    assert output(project.spawn("--app", "shop", "append", name))[0] == 0
    code, out, err = output(project.spawn("--app", "shop", "run", "--until-idle"))
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(
        "store sqlite:///shop.db, 3 flows, 3 triggers, build "
    )
    assert out.splitlines()[1] == "idle: 1 done; left: 1 waiting"
    code, out, _ = output(
        project.spawn("--app", "shop", "replay", project.id_of("welcome")[:9])
    )
    assert (code, out.splitlines()[-1]) == (0, "agrees with the store")


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_stops_in_order(project, which):
    """SIGINT and SIGTERM end a worker with its summary, and leave no worker behind."""
    project.run("append", project.lines(NOTE))
    worker = project.spawn("--app", "shop", "run")
    assert worker.stdout.readline().startswith("store ")
    found_id = project.id_of("simple")
    # Returns once the worker has done its part, so there is something to sum up.
    with wait_client() as client:
        client.wait(found_id, timeout=60)
    worker.send_signal(which)
    code, out, err = output(worker)
    assert (code, err) == (0, "")
    assert out.startswith("stopped: ")
    assert project.json("doctor")["workers"] == []


SLOW = """
import pathlib, time
import triggerflow as tf
from triggerflow.engine.draining import Draining

app = tf.App(store="sqlite:///shop.db", entry_points=False)
drain = Draining.run


def noted(self, limit):
    if pathlib.Path("ends-in-drain").exists():
        pathlib.Path("first-may-end").touch()
    return drain(self, limit)


Draining.run = noted


def step(name):
    pathlib.Path(f"{name}-runs").touch()
    while not pathlib.Path(f"{name}-may-end").exists():
        time.sleep(0.01)
    return name


@app.flow
def slow(name):
    yield tf.call(step, name)
    return (yield tf.call(step, "next"))
"""


def slow_worker(project, *words):
    """A worker that runs a step."""
    import triggerflow as tf

    project.write(SLOW, "slow")
    with tf.App(store="sqlite:///shop.db", entry_points=False).client(work=False) as client:
        client.start("slow", "first")
    worker = project.spawn("--app", "slow", "run", *words)
    assert worker.stdout.readline().startswith("store ")
    while not (project.path / "first-runs").exists():
        assert worker.poll() is None
        os.sched_yield()
    return worker


def no_worker(project):
    """Nobody is registered any more; doctor minds that something is runnable."""
    return project.json("doctor", status=1)["workers"] == []


def test_a_worker_drains(project):
    """At a signal a running step may end, its flow is handed back, and it says so."""
    (project.path / "ends-in-drain").touch()
    worker = slow_worker(project, "--drain", "50")
    worker.send_signal(signal.SIGTERM)
    code, out, err = output(worker)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == (
        "drained: 1 running step finished, 0 steps given up, 1 instance handed back"
    )
    assert not (project.path / "next-runs").exists()
    assert no_worker(project)


def test_a_second_signal_ends_at_once(project):
    """Whoever can't wait for a step gives it up; its instance is handed back all the same."""
    worker = slow_worker(project, "--drain", "1000")
    worker.send_signal(signal.SIGTERM)
    assert worker.stdout.readline() == (
        "stopping: running steps have 1,000 s; a second signal gives them up\n"
    )
    worker.send_signal(signal.SIGINT)
    code, out, err = output(worker)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == (
        "drained: 0 running steps finished, 1 step given up, 1 instance handed back"
    )
    assert no_worker(project)


def wait_client():
    import triggerflow as tf

    return tf.App(store="sqlite:///shop.db", entry_points=False).client(work=False)


def test_ctrl_c_is_quiet(project):
    """Interrupted elsewhere, it ends with 130 and without a word."""
    waiting = project.spawn("--app", "shop", "append", "-", stdin=subprocess.PIPE)
    waiting.stdin.write(json.dumps(NOTE) + "\n")
    waiting.stdin.flush()
    while not (project.path / "shop.db").exists():
        assert waiting.poll() is None
        os.sched_yield()
    waiting.send_signal(signal.SIGINT)
    code, _, err = output(waiting)
    assert code in (130, -signal.SIGINT)
    assert "Traceback" not in err


def test_a_closed_pipe_is_quiet(project):
    """A reader that has enough (`| head`) hears nothing more."""
    project.run("append", project.lines(*({**NOTE, "n": n} for n in range(400))))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.run(
            [sys.executable, "-m", "triggerflow", "--app", "shop", "ps", "--all", "--json"],
            cwd=project.path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert process.stderr == b""
    assert process.returncode == 141


def on_terminal(project, *words, **settings):
    """What a person sees: the output of a command on a pseudo terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "triggerflow", "--app", "shop", *words],
        cwd=project.path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "COLUMNS": "90",
            "TERM": "xterm-256color",
            **settings,
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:
            break
        if not more:
            break
        seen += more
    os.close(ours)
    process.wait(timeout=60)
    return seen.decode()


def test_a_terminal_gets_colours_and_fits(project):
    """On a terminal statuses are coloured and no line is wider than it; NO_COLOR holds."""
    project.run("append", project.lines(NOTE, FOLLOW), "--work")
    seen = on_terminal(project, "ps")
    assert "\x1b[32m" in seen
    plain = on_terminal(project, "ps", NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert all(len(line.rstrip()) <= 90 for line in plain.splitlines() if "\x1b" not in line)
    seen = on_terminal(project, "replay", project.id_of("welcome"), NO_COLOR="1")
    assert "agrees with the store" in seen


@pytest.mark.parametrize("columns", [60, 90])
def test_the_last_column_gives_way(project, columns):
    """On a narrow terminal values are cut, and positions, tags and places stay whole."""
    project.run("append", project.lines(FOLLOW), "--work")
    words = ("replay", project.id_of("welcome"))
    seen = on_terminal(project, *words, COLUMNS=str(columns), NO_COLOR="1")
    lines = [line for line in seen.splitlines() if "call:" in line]
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3"]
    assert all(" shop.py:" in line for line in lines)
    assert "…" in lines[1]


def test_a_terminal_gets_progress(project):
    """Long work shows a bar on a terminal, and takes it away at its end."""
    name = project.lines(*({**NOTE, "n": n} for n in range(1500)))
    seen = on_terminal(project, "append", name)
    assert "append" in seen
    assert "1,500 activities appended" in seen
    assert "\x1b[2K" in seen


PLUGIN = """
import click
import triggerflow as tf


class Extra:
    @tf.hookimpl
    def triggerflow_cli(self, group):
        @group.command(short_help="Greets.")
        @click.pass_obj
        def greet(session):
            click.echo(f"hello from {session.store.url}")


app = tf.App(store="sqlite:///shop.db", plugins=[Extra()], entry_points=False)
"""


def test_plugins_bring_commands(project):
    """A plugin's command is listed in the help and runs with the session at hand."""
    project.write(PLUGIN, "extended")
    assert "greet" in project.run("--help", app="extended").stdout
    assert project.run("greet", app="extended").stdout == "hello from sqlite:///shop.db\n"
    assert "No such command 'greet'" in project.run("greet", status=2).stderr


def test_help_works_with_a_broken_app(project):
    """Help of an app that can't be imported is shown all the same, with a remark."""
    project.write("1 / 0\n", "broken")
    result = project.run("--help", app="broken")
    assert "Append activities" in result.stdout
    assert "ZeroDivisionError" in result.stderr
