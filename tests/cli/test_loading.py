"""Settings and the app: precedence, and what is said when the app can't be had."""

import pytest

OTHER = "import triggerflow as tf\nservice = tf.App(store='sqlite:///other.db')\n"


@pytest.mark.parametrize("spec", ["shop", "shop:app", "shop.py", "shop.py:app", "./shop.py"])
def test_the_app_is_named_by_module_or_by_file(project, spec):
    """A module, a module with an attribute and a path all lead to the app."""
    assert "welcome/1" in project.run("flows", app=spec).stdout


def test_a_file_in_another_folder_finds_its_neighbours(project):
    """The folder of an app that is named by path is where its imports are looked up."""
    folder = project.path / "deep"
    folder.mkdir()
    (folder / "neighbour.py").write_text("NAME = 'near'\n")
    (folder / "far.py").write_text(
        "import neighbour\nimport triggerflow as tf\napp = tf.App()\n"
        "@app.flow(name=neighbour.NAME)\ndef fn(x):\n    yield tf.sleep(1)\n"
    )
    assert "near/1" in project.run("flows", app="deep/far.py").stdout


def test_flag_beats_environment_beats_pyproject(project, monkeypatch):
    """Settings count in this order: flag, environment, pyproject.toml, the app's own store."""
    (project.path / "pyproject.toml").write_text(
        "[tool.triggerflow]\napp = 'shop'\nstore = 'sqlite:///toml.db'\n"
    )
    note = project.lines({"type": "X", "actor": "a"})
    project.run("append", note, app=None)
    assert (project.path / "toml.db").exists()
    monkeypatch.setenv("TRIGGERFLOW_STORE", "sqlite:///env.db")
    project.run("append", note, app=None)
    assert (project.path / "env.db").exists()
    project.run("--store", "sqlite:///flag.db", "append", note, app=None)
    assert (project.path / "flag.db").exists()
    assert not (project.path / "shop.db").exists()
    monkeypatch.setenv("TRIGGERFLOW_APP", "nowhere")
    said = project.run("flows", app=None, status=1).stderr
    assert "TRIGGERFLOW_APP nowhere: there is no module 'nowhere'" in said


def test_the_apps_own_store_is_the_last_resort(project):
    """Without a setting, the app's own store is used."""
    project.run("append", project.lines({"type": "X", "actor": "a"}))
    assert (project.path / "shop.db").exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named 'nothing_of"),
        ("x = 1\nx.y\n", "AttributeError: 'int' object has no attribute 'y' (at bad.py:2)"),
        ("def (:\n", "SyntaxError: "),
        ("raise SystemExit(3)\n", "SystemExit: 3 (at bad.py:1)"),
        (
            "import triggerflow as tf\napp = tf.App()\n\napp.trigger('t', on=7, start='f')\n",
            "(at bad.py:4)",
        ),
    ],
)
def test_an_app_that_cannot_be_imported_is_told_with_file_and_line(project, source, said):
    """A failing import is one error with the user's own line, not a traceback."""
    project.write(source, "bad")
    result = project.run("flows", app="bad", status=1)
    assert result.stderr.startswith("error: --app bad: importing bad failed: ")
    assert said in result.stderr
    assert "bad.py:" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("other", "other has no 'app'; its apps: service"),
        ("other:servise", "other has no 'servise'; its apps: service"),
        ("other:tf", "tf is a module, expected a triggerflow.App; its apps: service"),
        ("gone", "there is no module 'gone'"),
        ("gone.py", "there is no file gone.py"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_with_the_nearest(project, spec, said):
    """A missing module, file or attribute, or one of another kind, is told by name."""
    project.write(OTHER, "other")
    assert said in project.run("flows", app=spec, status=1).stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.triggerflow]\napps = 'x'\n", "has 'apps', expected app, store, triggers"),
        ("[tool.triggerflow]\napp = 7\n", "app is 7, expected text"),
        ("[tool.triggerflow\n", "pyproject.toml: "),
    ],
)
def test_a_wrong_pyproject_is_told(project, text, said):
    """A setting that would be ignored, or can't be read, is an error."""
    (project.path / "pyproject.toml").write_text(text)
    assert said in project.run("ps", app=None, status=1).stderr


def test_asking_makes_no_store(project):
    """A command that only asks doesn't make a database where there is none."""
    said = project.run("ps", status=1).stderr
    assert "there is no such file yet" in said
    assert not (project.path / "shop.db").exists()


def test_an_unknown_store_url_is_one_error(project):
    """A URL that no backend knows is told with what can be used."""
    said = project.run("--store", "nosql://x", "ps", status=1).stderr
    assert said.startswith("error: store nosql://x: no backend knows this URL")
