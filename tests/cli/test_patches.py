"""`patches`: when the branches of a guarded change can be removed."""

import pytest

OLD = 'reply = yield tf.wait_signal("reply")\n'
NEW = """if (yield tf.patched("second-mail")):
        yield tf.call(send, profile["email"], "second")
    reply = yield tf.wait_signal("reply")
"""
FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}


@pytest.fixture
def changed(project):
    """A project whose flow was changed while an instance waited."""
    project.run("append", project.lines(FOLLOW), "--work")
    project.change(OLD, NEW)
    return project


def test_patches_tell_who_needs_the_old_branch(changed):
    """As text: verdict, place and ids by side; then the new one's side as well."""
    old = changed.id_of("welcome")
    out = changed.run("patches").stdout
    assert "welcome/1  second-mail: the old branch is still needed by 1" in out
    assert "shop.py:" in out
    assert f"old branch: 1  {old[:8]}" in " ".join(out.split()).replace(": 1 ", ": 1  ")
    newer = {"type": "Follow", "actor": "https://a.example/bob"}
    changed.run("append", changed.lines(newer, name="more.jsonl"), "--work")
    (found,) = changed.json_lines("patches", "--flow", "welcome")
    assert (found["old"], found["new"]) == ([old], [changed.id_of("welcome")])
    assert found["removable"] == "nothing"


def test_patches_tell_when_nobody_needs_it(changed):
    """Once the old one has ended, its branch may go; the store is only read."""
    old = changed.id_of("welcome")
    changed.run("terminate", old)
    (found,) = changed.json_lines("patches")
    assert (found["removable"], found["verdict"]) == ("guard", "safe to remove the guard")
    assert changed.json_lines("patches", "--flow", "simple") == []
    assert "no patched(id)" in changed.run("patches", "--flow", "simple").stderr


def test_patches_need_the_app_and_say_what_they_left_out(changed):
    """Flows are code; instances of flows that this app doesn't know are counted."""
    changed.run("patches", "--flow", "nope", status=1)
    assert (
        "patches are found by driving flows"
        in changed.run("patches", app=None, status=1).stderr
    )
    source = (changed.path / "shop.py").read_text()
    changed.write(source.replace("def welcome", "def other").replace("=welcome", "=other"))
    assert "not looked at: 1 open" in changed.run("patches").stderr
