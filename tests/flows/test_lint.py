"""The determinism lint: each hazard by its aliases, and what must not be taken for one."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import textwrap
import time
from pathlib import Path

import pytest

import triggerflow as tf
from triggerflow.flows.lint import Finding, lint_flow, trusted

ROOT = Path(__file__).resolve().parents[2]
NUMBER = itertools.count()


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write modules into a project of their own, and import the last."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(code: str, **others: str):
        for name, text in (*others.items(), (f"flows_{next(NUMBER)}", code)):
            text = textwrap.dedent(text)
            (tmp_path / f"{name}.py").write_text("import triggerflow as tf\n" + text)
            sys.modules.pop(name, None)
            importlib.invalidate_caches()
            module = importlib.import_module(name)
        return module

    return write


def rules(module, name: str = "flow", severity: str = "error") -> list[str]:
    return [each.rule for each in lint_flow(getattr(module, name)) if each.severity == severity]


def body(*lines: str, before: str = "") -> str:
    inside = textwrap.indent("\n".join(lines), "    ")
    return f"{textwrap.dedent(before)}\ndef flow(activity):\n{inside}\n    yield tf.sleep(1)\n"


ERRORS = {
    "module": ("import time", "time.time()", "clock"),
    "alias": ("import time as t", "t.monotonic()", "clock"),
    "name": ("from time import perf_counter", "perf_counter()", "clock"),
    "renamed": ("from time import time_ns as ns", "ns()", "clock"),
    "datetime": ("from datetime import datetime as dt", "dt.now()", "clock"),
    "chain": ("import datetime", "datetime.datetime.utcnow()", "clock"),
    "today": ("from datetime import date", "date.today()", "clock"),
    "strftime": ("import time", "time.strftime('%Y')", "clock"),
    "random": ("import random", "random.random()", "random"),
    "choice": ("from random import choice", "choice([1, 2])", "random"),
    "shuffle": ("import random as r", "r.shuffle(activity)", "random"),
    "unseeded": ("import random", "random.Random()", "random"),
    "shared": ("import random\nRNG = random.Random(1)", "RNG.random()", "random"),
    "secrets": ("import secrets", "secrets.token_hex()", "random"),
    "uuid": ("import uuid", "str(uuid.uuid4())", "random"),
    "uuid1": ("from uuid import uuid1 as new", "new().hex", "random"),
    "urandom": ("import os", "os.urandom(4)", "random"),
    "urandom name": ("from os import urandom", "urandom(4)", "random"),
    "open": ("", "open('x')", "io"),
    "input": ("", "input()", "io"),
    "path": ("from pathlib import Path", "Path('x').read_text()", "io"),
    "path parts": ("from pathlib import Path", "(Path('x') / 'y').exists()", "io"),
    "shared path": ("import pathlib\nHERE = pathlib.Path('x')", "HERE.write_text('')", "io"),
    "os.path": ("import os.path", "os.path.exists('x')", "io"),
    "remove": ("import os as o", "o.remove('x')", "io"),
    "socket": ("import socket", "socket.create_connection(('h', 1))", "io"),
    "subprocess": ("import subprocess", "subprocess.run(['ls'])", "io"),
    "popen": ("from subprocess import Popen", "Popen('ls')", "io"),
    "urllib": ("from urllib.request import urlopen", "urlopen('x').read()", "io"),
    "environ": ("import os", "os.environ['HOME']", "environment"),
    "environ name": ("from os import environ", "environ.get('HOME')", "environment"),
    "getenv": ("import os", "os.getenv('HOME')", "environment"),
    "argv": ("import sys", "len(sys.argv)", "environment"),
    "cwd": ("from pathlib import Path", "Path.cwd()", "environment"),
    "thread": ("import threading", "threading.Thread(target=print).start()", "thread"),
    "thread name": ("from threading import Thread as T", "T()", "thread"),
    "pool": (
        "from concurrent.futures import ThreadPoolExecutor",
        "ThreadPoolExecutor()",
        "thread",
    ),
    "pool chain": (
        "import concurrent.futures",
        "concurrent.futures.ThreadPoolExecutor()",
        "thread",
    ),
    "process": ("import multiprocessing", "multiprocessing.Process()", "thread"),
    "asyncio": ("import asyncio", "asyncio.run(activity)", "async"),
    "trio": ("import trio", "trio.run(activity)", "async"),
    "trio chain": ("import trio", "trio.to_thread.run_sync(activity)", "async"),
    "sleep": ("import time", "time.sleep(1)", "sleep"),
    "sleep name": ("from time import sleep as pause", "pause(1)", "sleep"),
    "asyncio sleep": ("import asyncio", "asyncio.sleep(1)", "sleep"),
    "local import": ("", "__import__ and 1\nimport time as t\nt.time()", "clock"),
    "unloaded": ("", "import requests\nrequests.get('x')", "io"),
    "unloaded name": ("", "from numpy.random import rand as r\nr()", "random"),
    "local alias": ("import time", "clock = time.time\nx = clock() + 1\nx += 1", "clock"),
    "getattr": ("import time", "getattr(time, 'time')()", "clock"),
    "comprehension": ("import time", "[time.time() for each in activity]", "clock"),
    "lambda called": ("import time", "(lambda: time.time())()", "clock"),
    "lambda key": (
        "import random",
        "sorted(activity, key=lambda e: random.random())",
        "random",
    ),
    "sort key": ("import random", "activity.sort(key=lambda e: random.random())", "random"),
    "map": ("import os", "list(map(os.stat, activity))", "io"),
    "nested": ("import time", "def inner():\n    return time.time()\ninner()", "clock"),
    "argument": ("import time", "tf.call(print, time.time()) and 1", "clock"),
    "f-string": ("import time", "f'{time.time()}'", "clock"),
    "default": ("import time", "def inner(at=time.time()):\n    return at", "clock"),
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_a_hazard_is_an_error_under_each_of_its_names(load, name) -> None:
    """However it is reached, what surely is the forbidden thing is refused, once."""
    before, code, rule = ERRORS[name]
    found = rules(load(body(*code.split("\n"), before=before)))
    assert found == [rule]


WARNINGS = {
    "print": ("", "print(activity)", "output"),
    "logger": ("import logging\nlog = logging.getLogger('x')", "log.info('x')", "output"),
    "stdout": ("import sys", "sys.stdout.write('x')", "output"),
    "global": ("X = 0", "global X\nX = 1", "state"),
    "global added": ("X = 0", "global X\nX += 1", "state"),
    "item": ("CACHE = {}", "CACHE[activity] = 1", "state"),
    "append": ("SEEN = []", "SEEN.append(activity)", "state"),
    "attribute": ("class C: pass\nSTATE = C()", "STATE.x = 1", "state"),
    "counter": ("import itertools\nN = itertools.count()", "next(N)", "state"),
    "set": ("", "for each in {1, 2}:\n    each + 1", "set_order"),
    "set made": ("", "for each in set(activity):\n    each + 1", "set_order"),
    "set named": ("", "names = set(activity)\n[n for n in names]", "set_order"),
    "set less": ("", "list(set(activity) - {1})", "set_order"),
    "set shared": ("KINDS = frozenset('ab')", "tuple(KINDS)", "set_order"),
    "set joined": ("", "','.join({'a', 'b'})", "set_order"),
    "getattr": ("", "getattr(activity, activity.name)()", "dynamic"),
    "eval": ("", "eval('1')", "dynamic"),
    "exec": ("", "exec('1')", "dynamic"),
    "parameter": ("", "activity(1)", "dynamic"),
    "item called": ("", "activity['fn'](1)", "dynamic"),
    "loop": ("", "for each in activity:\n    each()", "dynamic"),
    "result called": ("def make(x): return x", "make(activity)(1)", "dynamic"),
    "got and called": ("", "activity.get('fn')(1)", "dynamic"),
    "globals": ("", "globals()['fn'](1)", "dynamic"),
    "imported by name": ("import importlib", "importlib.import_module('x')", "dynamic"),
    "table": ("TABLE = {'a': len}", "TABLE[activity](1)", "dynamic"),
    "either": ("", "(len if activity else max)(1)", "dynamic"),
    "partial": ("import functools", "functools.partial(activity, 1)()", "dynamic"),
    "mapped": ("", "list(map(activity, [1]))", "dynamic"),
    "key": ("", "sorted([1], key=activity['key'])", "dynamic"),
    "sorted by": ("", "found = [1]\nfound.sort(key=activity)", "dynamic"),
    "grouped by": (
        "import itertools",
        "itertools.groupby([1], activity)",
        "dynamic",
    ),
    "id": ("", "id(activity)", "identity"),
    "hash": ("", "hash(activity)", "identity"),
    "finally": ("", "try:\n    pass\nfinally:\n    yield tf.sleep(1)", "finally"),
    "finally, if": (
        "",
        "try:\n    yield tf.sleep(1)\nfinally:\n    if activity:\n        yield tf.sleep(1)",
        "finally",
    ),
    "finally, of a part": (
        "def part():\n    yield tf.sleep(1)",
        "try:\n    yield tf.sleep(1)\nfinally:\n    yield from part()",
        "finally",
    ),
    "finally, in a helper": (
        "def part():\n    try:\n        yield 1\n    finally:\n        yield tf.sleep(2)",
        "yield from part()",
        "finally",
    ),
    "cancelled": (
        "",
        "try:\n    yield tf.sleep(1)\nexcept tf.FlowCancelled:\n    return 1",
        "swallow",
    ),
}


@pytest.mark.parametrize("name", sorted(WARNINGS))
def test_what_may_be_meant_is_a_warning(load, name) -> None:
    """What is wrong only perhaps, or can't be followed, is told and not refused."""
    before, code, rule = WARNINGS[name]
    module = load(body(*code.split("\n"), before=before))
    assert rules(module) == []
    assert rules(module, severity="warning") == [rule]


FINE = {
    "parameter hides": ("import time", "inner = lambda time: time.time()\ninner(activity)"),
    "local hides": ("import time", "time = activity['clock']\ntime.time()"),
    "loop hides": ("import os", "for os in activity:\n    os.remove('x')"),
    "comprehension hides": ("import os", "[os.remove('x') for os in activity]"),
    "with hides": ("import os", "with activity as os:\n    os.remove('x')"),
    "except hides": ("", "try:\n    pass\nexcept OSError as open:\n    open.read()"),
    "def hides": ("", "def open(x):\n    return x\nopen(1)"),
    "match hides": (
        "import time",
        "match activity:\n    case {'t': time}:\n        time.time()",
    ),
    "own open": ("def open(x):\n    return x", "open('x')"),
    "own time": ("class time:\n    time = staticmethod(len)", "time.time('x')"),
    "seeded": ("import random", "random.Random(4).random()"),
    "given time": ("import time", "time.gmtime(3)\ntime.strftime('%Y', time.gmtime(3))"),
    "parsed": ("from datetime import datetime", "datetime.fromisoformat('2020-01-01')"),
    "uuid5": ("import uuid", "uuid.uuid5(uuid.NAMESPACE_URL, 'x')"),
    "pure path": ("from pathlib import PurePath, Path", "Path('x').with_suffix('.y').name"),
    "joined": ("import os", "os.path.join('a', 'b')"),
    "quoted": ("from urllib.parse import quote", "quote('x')"),
    "methods": ("", "activity.open()\nactivity['x'].read_text()\nactivity.sleep()"),
    "sorted set": ("", "for each in sorted({1, 2}):\n    each + 1\nany(x for x in {1, 2})"),
    "set of set": ("", "{x + 1 for x in {1, 2}}\nlen({1})"),
    "unused reference": ("import time", "given = {'fn': time.time}\nlen(given)"),
    "own random": ("", "x = yield tf.random()\ny = yield tf.uuid4()\nz = yield tf.now()"),
    "from import": (
        "from triggerflow import random, sleep",
        "x = yield random()\nyield sleep(x)",
    ),
    "exception": ("import asyncio, subprocess", "asyncio.TimeoutError()"),
    "local list": ("", "found = []\nfound.append(1)\nfound[0] = 2"),
    "step": (
        "import time\ndef step():\n    return time.time()",
        "yield tf.call(step)\nyield tf.side_effect(step)\nyield tf.side_effect(time.time)",
    ),
    "inner step": ("import time", "def step():\n    return time.time()\nyield tf.call(step)"),
    "lambda step": ("import os", "yield tf.side_effect(lambda: os.environ['X'])"),
    "compensation": (
        "import os\ndef pay(): pass",
        "yield tf.call(pay).using(name='x')",
    ),
    "caught": ("", "try:\n    yield tf.sleep(1)\nexcept Exception:\n    pass"),
    "raised again": ("", "try:\n    yield tf.sleep(1)\nexcept BaseException:\n    raise"),
    "first caught": (
        "",
        "try:\n    yield tf.sleep(1)\nexcept tf.FlowCancelled:\n    raise\nexcept:\n    pass",
    ),
    "no yield": ("", "try:\n    int('x')\nexcept:\n    pass"),
    "clean-up": ("", "try:\n    yield tf.sleep(1)\nfinally:\n    x = 1"),
    "clean-up when cancelled": (
        "",
        "try:\n    yield tf.sleep(1)\nexcept tf.FlowCancelled:\n    yield tf.now()\n    raise",
    ),
    "needed in finally": (
        "",
        "try:\n    yield tf.sleep(1)\nfinally:\n    yield tf.sleep(2)  # tf: trust",
    ),
    "data to callers": (
        "",
        "list(map(len, activity))\nsorted(activity)\nmax(activity, key=len)",
    ),
    "no key": ("", "sorted(activity, key=None)\nlist(filter(None, activity))"),
    "methods in a row": ("", "activity.strip().split()\nactivity['a'].lower().title()"),
}


@pytest.mark.parametrize("name", sorted(FINE))
def test_what_only_looks_like_a_hazard_is_let_pass(load, name) -> None:
    """What hides a module's name is not the module; what is not called is not looked at."""
    before, code = FINE[name]
    assert lint_flow(load(body(*code.split("\n"), before=before)).flow) == []


# --- helpers ------------------------------------------------------------------------------


def test_helpers_are_followed_through_modules(load) -> None:
    """A hazard three calls away is found where it stands, and its reach is told."""
    module = load(
        "from middle import carry as c\ndef flow(activity):\n    yield tf.sleep(c())\n",
        deepest="import time as t\ndef stamp():\n    return t.time()\n",
        middle="import deepest\ndef carry():\n    return deepest.stamp()\n",
    )
    (found,) = lint_flow(module.flow)
    assert found.rule == "clock"
    assert Path(found.file).name == "deepest.py"
    assert found.line == 4
    assert "in stamp, reached from flow" in found.problem
    assert "tf.now()" in found.remedy
    assert str(found).startswith(f"{found.file}:4: t.time() reads the clock")


HELPERS = {
    "method": "class C:\n    def stamp(self):\n        return time.time()\nC_ = C()\n",
    "self": (
        "class C:\n    def stamp(self):\n        return self.inner()\n"
        "    def inner(self):\n        return time.time()\nC_ = C()\n"
    ),
    "static": "class C_:\n    @staticmethod\n    def stamp():\n        return time.time()\n",
    "class": (
        "class C_:\n    @classmethod\n    def stamp(cls):\n        return cls.inner()\n"
        "    @staticmethod\n    def inner():\n        return time.time()\n"
    ),
    "inherited": (
        "class A:\n    def stamp(self):\n        return time.time()\n"
        "class B(A): pass\nC_ = B()\n"
    ),
    "callable": (
        "class S:\n    def __call__(self):\n        return time.time()\n"
        "class C_:\n    stamp = S()\n"
    ),
    "made": (
        "class S:\n    def __init__(self):\n        self.at = time.time()\n"
        "class C_:\n    stamp = S\n"
    ),
    "partial": (
        "import functools\ndef at(x):\n    return time.time()\n"
        "class C_:\n    stamp = functools.partial(at, 1)\n"
    ),
    "cached": (
        "import functools\nclass C_:\n    @staticmethod\n    @functools.cache\n"
        "    def stamp():\n        return time.time()\n"
    ),
    "recursive": (
        "class C_:\n    @staticmethod\n    def stamp():\n        C_.stamp()\n"
        "        return time.time()\n"
    ),
}


@pytest.mark.parametrize("name", sorted(HELPERS))
def test_methods_and_callables_are_followed(load, name) -> None:
    """What lives beside the flows is known, so its methods are looked at too."""
    module = load(body("C_.stamp()", before="import time\n" + HELPERS[name]))
    assert rules(module) == ["clock"]


def test_decorated_helpers_are_seen_through(load) -> None:
    """Both the wrapper and what it wraps are looked at, in each place that it is used."""
    module = load(
        """
        import functools, os, time
        def loud(fn):
            @functools.wraps(fn)
            def inner(*args):
                os.getenv("LOUD")
                return fn(*args)
            return inner
        @loud
        def one():
            return time.time()
        @loud
        def two():
            return time.sleep(1)
        @loud
        def flow(activity):
            one()
            two()
            yield tf.sleep(1)
        """
    )
    assert sorted(rules(module)) == ["clock", "environment", "sleep"]


def test_helpers_that_stand_below_the_flow_are_found(load) -> None:
    """At registration the rest of the file has not run; its functions count all the same."""
    module = load(
        """
        import time
        from triggerflow.flows.lint import lint_flow
        def register(fn):
            fn.found = lint_flow(fn)
            return fn
        @register
        def flow(activity):
            yield tf.sleep(later())
        def later():
            return time.time()
        """
    )
    assert [each.rule for each in module.flow.found] == ["clock"]


def test_flows_called_as_sub_generators_are_followed(load) -> None:
    """A flow inside a flow is part of it; so is a branch given to gather."""
    module = load(
        """
        import time, random
        @tf.flow
        def inner(activity):
            yield tf.sleep(time.time())
        def branch():
            yield tf.sleep(random.random())
        @tf.flow
        def flow(activity):
            yield from inner(activity)
            yield tf.gather(branch(), branch())
        """
    )
    assert sorted(rules(module)) == ["clock", "random"]


def test_a_factory_s_flow_knows_its_closure(load) -> None:
    """A free variable means what the closure holds, flow by flow."""
    module = load(
        """
        import time
        def make(clock):
            def flow(activity):
                yield tf.sleep(clock())
            return flow
        bad, good = make(time.time), make(len)
        """
    )
    assert rules(module, "bad") == ["clock"]
    assert lint_flow(module.good) == []


def test_libraries_are_not_followed(load) -> None:
    """What an installed package or the standard library does inside is its own business."""
    lines = ("shlex.split('x')", "attrs.asdict(activity)", "click.Command('x')")
    module = load(body(*lines, before="import attrs, click, shlex"))
    assert lint_flow(module.flow) == []


def test_an_installed_package_is_known_by_its_metadata(load, tmp_path) -> None:
    """A folder of installed packages, wherever it lies, is not the project."""
    (tmp_path / "thing-1.0.dist-info").mkdir()
    module = load(body("thing.stamp()", before="import thing"),
                  thing="import time\ndef stamp():\n    return time.time()\n")  # fmt: skip
    assert lint_flow(module.flow) == []


# --- effects ------------------------------------------------------------------------------

UNYIELDED = {
    "statement": "tf.sleep(1)",
    "using": "tf.call(print).using(name='x')",
    "list": "[tf.sleep(1), tf.sleep(2)]",
    "comprehension": "[tf.sleep(n) for n in activity]",
    "name": "pause = tf.sleep(1)",
    "annotated": "pause: object = tf.sleep(1)",
    "list name": "jobs = [tf.sleep(n) for n in activity]",
    "filled": "jobs = []\njobs.append(tf.sleep(1))",
    "gather": "tf.gather(tf.sleep(1), tf.sleep(2))",
    "sub-generator": "def inner():\n    yield tf.sleep(1)\ninner()",
}


@pytest.mark.parametrize("name", sorted(UNYIELDED))
def test_an_effect_that_nobody_yields_is_an_error(load, name) -> None:
    """Built, kept or collected: what is never yielded never happens."""
    assert rules(load(body(*UNYIELDED[name].split("\n")))) == ["unyielded"]


YIELDED = {
    "name": "pause = tf.sleep(1)\nyield pause",
    "list": "jobs = [tf.sleep(1)]\nyield tf.gather(*jobs)",
    "filled": "jobs = []\njobs.append(tf.sleep(1))\nyield tf.gather(*jobs)",
    "returned": "jobs = [tf.sleep(1)]\nreturn jobs",
    "nested": "pause = tf.sleep(1)\ndef inner():\n    yield pause\nyield from inner()",
    "from": "yield from tf.sleep(1)",
    "passed": "jobs = activity['jobs']\njobs.append(tf.sleep(1))",
    "result": "got = yield tf.sleep(1)",
}


@pytest.mark.parametrize("name", sorted(YIELDED))
def test_an_effect_that_is_used_is_let_pass(load, name) -> None:
    """What somebody may still yield is not complained of."""
    assert lint_flow(load(body(*YIELDED[name].split("\n"))).flow) == []


BARE = {
    "value": "def fetch(x):\n    return {'x': x}",
    "nothing": "def fetch(x):\n    x += 1",
    "async": "async def fetch(x):\n    return x",
    "generator": "def fetch(x):\n    yield tf.sleep(x)",
    "json": "def fetch(x):\n    import requests\n    return requests.get(x).json()",
}


@pytest.mark.parametrize("name", sorted(BARE))
def test_yielding_a_step_s_own_result_is_an_error(load, name) -> None:
    """`yield fetch(x)` runs the step inside the flow; the remedy is spelled out."""
    module = load(BARE[name] + "\ndef flow(activity):\n    yield fetch(activity['id'])\n")
    (found,) = lint_flow(module.flow)
    assert (found.rule, found.severity) == ("bare_call", "error")
    wanted = (
        "yield from fetch(" if name == "generator" else "yield tf.call(fetch, activity['id'])"
    )
    assert wanted in found.remedy


EFFECTFUL = {
    "call": "def send(x):\n    return tf.call(print, x).using(name='print')",
    "passed on": "def send(x):\n    return x",
    "table": "KINDS = {'a': tf.sleep}\ndef send(x):\n    return KINDS[x](1)",
    "wrapped": (
        "import functools\ndef step(fn):\n    @functools.wraps(fn)\n    def made(*args):\n"
        "        return tf.call(fn, *args)\n    return made\n"
        "@step\ndef send(x):\n    return {'x': x}"
    ),
    "either": "def send(x):\n    if x:\n        return None\n    return tf.sleep(1)",
}


@pytest.mark.parametrize("name", sorted(EFFECTFUL))
def test_a_helper_that_may_make_an_effect_is_let_pass(load, name) -> None:
    """A plain function may return an effect, and only what surely doesn't is refused."""
    module = load(EFFECTFUL[name] + "\ndef flow(activity):\n    yield send(activity)\n")
    assert rules(module) == []


SWALLOWED = {
    "bare": "try:\n    yield tf.sleep(1)\nexcept:\n    pass",
    "base": "try:\n    yield tf.sleep(1)\nexcept BaseException:\n    x = 1",
    "tuple": "try:\n    yield tf.sleep(1)\nexcept (ValueError, BaseException):\n    pass",
    "return": "try:\n    yield tf.sleep(1)\nfinally:\n    return 1",
    "suppress": (
        "import contextlib as c\nwith c.suppress(BaseException):\n    yield tf.sleep(1)"
    ),
}


@pytest.mark.parametrize("name", sorted(SWALLOWED))
def test_swallowing_all_that_unwinds_a_flow_is_an_error(load, name) -> None:
    """Whoever catches everything round a yield makes the flow deaf to `cancel`."""
    assert rules(load(body(*SWALLOWED[name].split("\n")))) == ["swallow"]


# --- trust, sources, speed ----------------------------------------------------------------


def test_a_trusted_helper_is_not_looked_at(load) -> None:
    """`trusted` and `# tf: trust` are the author's word: a function, or one line."""
    module = load(
        """
        import time
        from triggerflow.flows.lint import trusted
        def stamp():
            return time.time()
        @trusted
        def sure():
            return time.time()
        def flow(activity):
            sure()
            stamp()  # tf: trust
            time.time()  # tf: trust, it only warms a cache
            later()
            yield tf.sleep(1)
        @trusted
        def later():
            return time.time()
        """
    )
    assert lint_flow(module.flow) == []


def test_trust_holds_for_its_line_only(load) -> None:
    """The next line is looked at as ever."""
    module = load(body("time.time()  # tf: trust", "time.time()", before="import time"))
    (found,) = lint_flow(module.flow)
    assert found.line == 5


def test_a_builtin_cannot_be_trusted() -> None:
    """What can't carry the mark is refused by name, with a way out."""
    with pytest.raises(tf.DefinitionError, match="wrap it"):
        trusted(len)


def test_code_without_a_source_is_one_warning() -> None:
    """What was typed or made by exec can't be checked, and the lint says so."""
    space = {"tf": tf}
    exec("import time\ndef flow(activity):\n    time.time()\n    yield tf.sleep(1)", space)
    (found,) = lint_flow(space["flow"])
    assert (found.rule, found.severity) == ("source", "warning")


def test_a_lambda_is_a_flow_like_any_other(load) -> None:
    """A flow may be a lambda; two on one line can't be told apart, and are not guessed at."""
    module = load("import time\nflow = lambda a: (yield tf.sleep(time.time()))\n")
    assert rules(module) == ["clock"]
    twins = load("import time\na, b = lambda: (yield time.time()), lambda: (yield 1)\n")
    assert [each.rule for each in lint_flow(twins.a)] == ["source"]


def test_hostile_objects_are_not_touched(load) -> None:
    """Proxies and properties beside the flows are neither called nor compared."""
    module = load(
        body(
            "PROXY.get()",
            "PROXY()",
            "PROXY == 1",
            "list(PROXY)",
            "THING.shout()",
            before="""
            class Proxy:
                def __getattribute__(self, name): raise RuntimeError(name)
                def __eq__(self, other): raise RuntimeError("eq")
                __hash__ = None
            PROXY = Proxy()
            class Thing:
                @property
                def shout(self): raise RuntimeError("read")
            THING = Thing()
        """,
        )
    )
    assert lint_flow(module.flow) == []


def test_the_found_order_is_that_of_the_file(load) -> None:
    """Findings are values, sorted by place, each once."""
    module = load(body("time.time()", "open('x')", "help_()", "help_()",
                       before="import time\ndef help_():\n    time.time()"))  # fmt: skip
    found = lint_flow(module.flow)
    assert [each.line for each in found] == sorted(each.line for each in found)
    assert len(found) == len(set(found)) == 3
    assert isinstance(found[0], Finding)


def test_a_normal_flow_is_linted_in_no_time() -> None:
    """After its file was read once, a flow costs a few milliseconds at most."""
    flows = example_flows()
    for each in flows:
        lint_flow(each)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for each in flows:
            lint_flow(each)
        best = min(best, (time.perf_counter() - start) / len(flows))
    assert best < 0.005


# --- the flows of this repository ---------------------------------------------------------


def example_flows() -> list[object]:
    """Every flow of the examples and of the first-party plugins."""
    found: dict[int, object] = {}
    added = str(ROOT / "plugins" / "triggerflow-github")
    sys.path.insert(0, added)
    try:
        for file in sorted((ROOT / "examples").glob("*/*.py")):
            if file.name.startswith("test_"):
                continue
            name = f"lint_example_{file.parent.name.replace('-', '_')}_{file.stem}"
            spec = importlib.util.spec_from_file_location(name, file)
            module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except ModuleNotFoundError as error:
                if not (error.name or "").startswith("triggerflow"):
                    continue  # an example that shows another library, which isn't here
                raise
            for each in vars(module).values():
                for flow in each.flows if isinstance(each, tf.App) else [each]:
                    if isinstance(flow, tf.Flow):
                        found[id(flow)] = flow
        from triggerflow_github import GitHub

        app = tf.App("memory://", plugins=[GitHub()], entry_points=False)
        found.update((id(each), each) for each in app.flows)
    finally:
        sys.path.remove(added)
    return list(found.values())


def test_our_own_flows_are_clean() -> None:
    """The examples and plugins show flows that the lint has nothing to say of."""
    flows = example_flows()
    assert len(flows) >= 6
    assert [str(each) for flow in flows for each in lint_flow(flow)] == []


def test_equal_code_in_two_files_is_told_apart(load) -> None:
    """A comment declares trust in its own file only, though the other's code is equal."""
    first = load(body("print(activity)"))
    second = load(body("print(activity)  # tf: trust"))
    assert first.flow.__code__ == second.flow.__code__
    assert [len(lint_flow(each.flow)) for each in (first, second)] == [1, 0]


# --- what is owed ---------------------------------------------------------------------------

STEPS = "def pay(): pass\ndef refund(receipt): pass\n"
PAID = "tf.call(pay).using(compensate=refund)"
BRANCH = f"def branch():\n    yield {PAID}  # here\n"

OWED = {
    "yielded": ("", f"yield {PAID}  # here"),
    "with more": ("", "yield tf.call(pay).using(  # here\n    timeout=3, compensate=refund\n)"),
    "kept first": ("", f"paid = {PAID}  # here\nyield paid"),
    "used later": ("", "paid = tf.call(pay)\nyield paid.using(compensate=refund)  # here"),
    "plain branch": ("", f"yield tf.gather({PAID}, tf.sleep(1))  # here"),
    "driven helper": (BRANCH, "yield from branch()"),
    "helper kept first": (BRANCH, "run = branch()\nyield from run"),
    "made by a helper": (f"def paid():\n    return {PAID}  # here\n", "yield paid()"),
    "in a branch, too": (BRANCH, "yield tf.race(branch())\nyield from branch()"),
    "the first only": ("", f"yield {PAID}  # here\nyield {PAID}"),
    "all but the trusted": ("", f"yield {PAID}  # tf: trust\nyield {PAID}  # here"),
}


@pytest.mark.parametrize("name", sorted(OWED))
def test_a_compensation_that_no_path_runs_is_warned_of(load, name) -> None:
    """What the flow itself owes and never undoes is told once, where it is called."""
    before, code = OWED[name]
    (found,) = lint_flow(load(STEPS + before + body(*code.split("\n"))).flow)
    assert (found.rule, found.severity) == ("owed", "warning")
    assert "# here" in Path(found.file).read_text().splitlines()[found.line - 1]
    assert "no path of the flow runs one" in found.problem
    assert "compensate_all()" in found.remedy


PAYS = {
    "all": ("", f"yield {PAID}\nyield tf.compensate_all()"),
    "one": ("", f"paid = {PAID}\nyield paid\nyield tf.compensate(paid)"),
    "named": (
        "",
        f"yield {PAID}\nfrom triggerflow import compensate_all as undo\nyield undo()",
    ),
    "in a helper": (
        "def undo():\n    yield tf.compensate_all()\n",
        f"yield {PAID}\nyield from undo()",
    ),
    "made by a helper": (
        "def undo():\n    return tf.compensate_all()\n",
        f"yield {PAID}\nyield undo()",
    ),
    "kept": ("", f"undo = tf.compensate_all\nyield {PAID}\nyield undo()"),
    "branch of a race": (BRANCH, "yield tf.race(branch(), tf.sleep(1))"),
    "branches of a gather": (BRANCH, "yield tf.gather(*(branch() for each in activity))"),
    "branches kept first": (BRANCH, "parts = [branch(), branch()]\nyield tf.gather(*parts)"),
    "inner branch": ("", f"def part():\n    yield {PAID}\nyield tf.race(part())"),
    "driven by a branch": (
        BRANCH + "def outer():\n    yield from branch()\n",
        "yield tf.race(outer())",
    ),
    "no compensation": ("", "yield tf.call(pay).using(compensate=None)"),
    "trusted": ("", f"yield {PAID}  # tf: trust"),
    "not to be followed": (
        "class S:\n    run = None\nS_ = S()\n",
        f"yield {PAID}\nyield from S_.run",
    ),
}


@pytest.mark.parametrize("name", sorted(PAYS))
def test_what_is_undone_somewhere_or_by_its_branch_is_fine(load, name) -> None:
    """A flow that undoes anything, branches, and what can't be followed give no warning."""
    before, code = PAYS[name]
    found = lint_flow(load(STEPS + before + body(*code.split("\n"))).flow)
    assert [each.rule for each in found] == []
