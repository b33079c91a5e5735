"""A small project in a folder of its own, and two ways to call the command line in it."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import triggerflow
from triggerflow.cli.main import cli

SHOP = """
import triggerflow as tf

app = tf.App(store="sqlite:///shop.db", entry_points=False)


def look_up(actor):
    return {"email": f"mail:{actor}", "tries": 3}


def send(to, text):
    return f"sent {text} to {to}"


def refuse(name):
    raise ValueError(f"no {name} today")


@app.flow
def welcome(activity):
    profile = yield tf.call(look_up, activity["actor"])
    yield tf.call(send, profile["email"], "welcome")
    first, second = yield tf.gather(tf.call(send, "a", "1"), tf.call(send, "b", "2"))
    reply = yield tf.wait_signal("reply")
    return {"reply": reply, "first": first}


@app.flow
def failing(activity):
    name = yield tf.call(look_up, "x")
    yield tf.call(refuse, activity["actor"])


@app.flow
def simple(activity):
    return (yield tf.call(look_up, activity["actor"]))


app.trigger("follow", on="Follow", start=welcome)
app.trigger("like", on="Like", start=failing)
app.trigger("note", on="Note", start=simple)
"""

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}
LIKE = {"type": "Like", "actor": "https://a.example/bob"}
NOTE = {"type": "Note", "actor": "https://a.example/cid"}


class Project:
    """A folder with an app module `shop`; `run` calls the command line within this process."""

    def __init__(self, path):
        self.path = path

    def write(self, source=SHOP, name="shop"):
        (self.path / f"{name}.py").write_text(source)
        self.forget()

    def change(self, old, new):
        source = (self.path / "shop.py").read_text()
        assert old in source
        self.write(source.replace(old, new))

    def forget(self):
        """As a new process would, import the project's modules anew."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(self.path)):
                del sys.modules[name]
        importlib.invalidate_caches()

    def lines(self, *documents, name="in.jsonl"):
        """A file of JSON lines; texts are written as they are."""
        path = self.path / name
        path.write_text(
            "".join(f"{d if isinstance(d, str) else json.dumps(d)}\n" for d in documents)
        )
        return name

    def run(self, *words, status=0, app="shop", input=None):
        flags = ["--app", app] if app else []
        result = CliRunner().invoke(cli, [*flags, *words], input=input, prog_name="triggerflow")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result

    def json(self, *words, **more):
        return json.loads(self.run(*words, "--json", **more).stdout)

    def json_lines(self, *words, **more):
        return [
            json.loads(line) for line in self.run(*words, "--json", **more).stdout.splitlines()
        ]

    def id_of(self, flow):
        """The newest instance of a flow."""
        return self.json_lines("ps", "--flow", flow)[0]["id"]

    def spawn(self, *words, **more):
        """The command line in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "triggerflow", *words],
            cwd=self.path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )


def environment():
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TRIGGERFLOW_")}
    root = str(Path(triggerflow.__file__).parents[1])
    return {**clean, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder with `shop.py`, as the working directory, free of settings from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("TRIGGERFLOW_APP", "TRIGGERFLOW_STORE", "TRIGGERFLOW_TRIGGERS"):
        monkeypatch.delenv(name, raising=False)
    made = Project(tmp_path)
    made.write()
    yield made
    made.forget()
