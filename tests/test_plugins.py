"""Plugins: installed for real, found by their entry points, blamed by name when broken."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import triggerflow as tf

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / "plugins" / "triggerflow-github"


def python(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, with folders that hold installed distributions."""
    paths = os.pathsep.join(map(str, (*folders, ROOT)))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )


def distribution(folder: Path, entry_point: str, code: str = "") -> Path:
    """Write what an installed distribution leaves behind: a module and its metadata."""
    about = folder / "shaky-0.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shaky\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(f"[triggerflow]\nshaky = {entry_point}\n")
    (folder / "shaky.py").write_text(textwrap.dedent(code))
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GitHub plugin, built and installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    # With the build backend at hand no network is needed.
    offline = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    subprocess.run(
        [
            *[sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *offline],
            *["--disable-pip-version-check", "--target", str(folder), str(GITHUB)],
        ],
        check=True,
        timeout=110,
    )
    return folder


def test_an_installed_plugin_loads_through_its_entry_point(installed: Path) -> None:
    """After pip install, an app has the plugin's flows and triggers, and they run."""
    done = python(
        """
        import triggerflow as tf
        import triggerflow_github
        app = tf.App("memory://")
        assert app.plugins.get_plugin("github") is not None
        print(triggerflow_github.__file__)
        print(*sorted(trigger.name for trigger in app.triggers))
        payload = {
            "action": "published",
            "release": {"tag_name": "1.0", "html_url": "https://github.com/r/1.0"},
            "repository": {"full_name": "ann/garden"},
            "sender": {"html_url": "https://github.com/ann"},
        }
        with app.client() as client:
            activity = triggerflow_github.activity_from_webhook("release", payload)
            (firing,) = client.append(activity).firings
            print(client.wait(firing.instance_id, timeout=20).status)
        print(len(tf.App("memory://", entry_points=False).triggers))
        own = tf.App("memory://", plugins=[triggerflow_github.GitHub(reminders=1)])
        print(len(own.triggers))
        """,
        installed,
    )
    assert done.returncode == 0, done.stderr
    where, names, status, without, own = done.stdout.splitlines()
    assert Path(where).is_relative_to(installed)
    assert names.split() == [
        "github-check-failed",
        "github-issue-opened",
        "github-pull-request-ready",
        "github-release-published",
        "github-workflow-failed",
    ]
    assert status == "done"
    assert without == "0"
    assert own == "5"


def test_the_installed_plugin_is_typed_and_described(installed: Path) -> None:
    """The distribution carries `py.typed`, its entry point and its dependency."""
    assert (installed / "triggerflow_github" / "py.typed").exists()
    (about,) = installed.glob("triggerflow_github-*.dist-info")
    assert (
        "github = triggerflow_github.plugin:default" in (about / "entry_points.txt").read_text()
    )
    assert "Requires-Dist: triggerflow" in (about / "METADATA").read_text()


def test_an_unrelated_app_can_refuse_entry_points(tmp_path: Path) -> None:
    """``entry_points=False`` never even imports what is installed."""
    folder = distribution(tmp_path, "shaky", "raise RuntimeError('imported')")
    done = python("import triggerflow as tf; tf.App(entry_points=False)", folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("entry_point", "code", "words"),
    [
        ("shaky", "raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("shaky:absent", "", "AttributeError"),
        ("nowhere", "", "ModuleNotFoundError"),
        (
            "shaky",
            """
            import triggerflow as tf

            @tf.hookimpl
            def triggerflow_no_such_hook(app): ...
            """,
            "triggerflow_no_such_hook",
        ),
        (
            "shaky",
            """
            import triggerflow as tf

            @tf.hookimpl
            def triggerflow_register(app, planet): ...
            """,
            "planet",
        ),
    ],
)
def test_a_broken_plugin_is_named(
    tmp_path: Path, entry_point: str, code: str, words: str
) -> None:
    """Whatever is wrong with an installed plugin, the error says which one and what."""
    done = python(
        """
        import triggerflow as tf
        try:
            tf.App()
        except tf.PluginError as error:
            print(error.plugin)
            print(error)
        """,
        distribution(tmp_path, entry_point, code),
    )
    assert done.returncode == 0, done.stderr
    plugin, _, message = done.stdout.partition("\n")
    assert "shaky" in plugin
    assert words in message


class Vetoer:
    """Refuses every activity, in words of its own."""

    @tf.hookimpl
    def triggerflow_validate(self, activity: tf.Activity) -> None:
        raise ValueError(f"no {activity.types[0]} here")


def test_a_veto_keeps_an_activity_out() -> None:
    """What a plugin raises rejects the activity by the plugin's doing; nothing is stored."""
    app = tf.App("memory://", plugins=[Vetoer()], entry_points=False)
    document = {"type": "Follow", "actor": "https://a.example/ann"}
    with app.client() as client:
        with pytest.raises(tf.ActivityRejected, match="no Follow here") as refused:
            client.append(document)
        assert isinstance(refused.value.__cause__, ValueError)
        (rejected,) = client.append_many([document])
        assert isinstance(rejected, tf.Rejected)
        assert isinstance(rejected.error, tf.ActivityRejected)


class Watcher:
    """Sees what was appended, and falls over."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    @tf.hookimpl
    def triggerflow_appended(self, activity: tf.Activity, firings: Any) -> None:
        self.seen.append((activity.cid, firings))
        raise RuntimeError("fell over")


def test_a_plugin_that_fails_after_the_commit_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told once, of new activities only; its exception is logged with its name."""
    watcher = Watcher()
    app = tf.App("memory://", plugins=[watcher], entry_points=False)
    document = {"type": "Follow", "actor": "https://a.example/ann"}
    with app.client() as client:
        first, second = client.append(document), client.append(document)
    assert watcher.seen == [(first.cid, ())]
    assert second.duplicate
    assert "failed in triggerflow_appended" in caplog.text
