"""The house: who may import, read a clock, commit a log, and what the public face is.

Everything is read from the source, so an import counts wherever it stands: at the top, under
``if TYPE_CHECKING`` or in a function. DESIGN.md, section 7, is the plan it is held to.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import triggerflow

ROOT = Path(triggerflow.__file__).parent
MODULES = {
    ".".join(("triggerflow", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): file
    for file in sorted(ROOT.rglob("*.py"))
}
FACES = {name for name, file in MODULES.items() if file.name == "__init__.py"}
TREES = {
    name: ast.parse(file.read_text(encoding="utf-8"), str(file))
    for name, file in MODULES.items()
}

# Lowest first; rooms of one floor don't import each other.
FLOORS = (
    {"errors"},
    {"core"},
    {"flows", "triggers", "store", "hooks"},
    {"pipeline"},
    {"engine", "plugins"},
    {"client"},
    {"aio", "definitions"},
    {"app"},
    {"cli", "testing"},
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
# `python -m triggerflow` is the command line's door.
DOORS = {"triggerflow.__main__": "cli"}


def place(module: str) -> str:
    """A module as its path in the house, for messages: ``engine/turn.py``."""
    return MODULES[module].relative_to(ROOT).as_posix()


def room(module: str) -> str:
    """The room of a module: the first part of its name below triggerflow."""
    return DOORS.get(module) or module.split(".")[1]


def imported(module: str) -> Iterator[str]:
    """Every module that a module imports, ours as the module that is meant."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(module)}:{node.lineno}: relative import"
            home = node.module or ""
            for each in node.names:
                below = f"{home}.{each.name}"
                yield below if below in MODULES else home


GRAPH = {
    module: {each for each in imported(module) if each in MODULES and each != module}
    for module in MODULES
    if module != "triggerflow"
}


def importers_of(*packages: str) -> set[str]:
    """Which modules import one of these packages, or something in them."""
    return {
        place(module)
        for module in MODULES
        if any(each.split(".")[0] in packages for each in imported(module))
    }


def scopes(module: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node of a module with the qualified name of the function or class around it."""

    def walk(node: ast.AST, around: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            yield around, child
            inner = around
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{around}.{child.name}" if around else child.name
            yield from walk(child, inner)

    yield from walk(TREES[module], "")


def callers_of(*methods: str) -> set[tuple[str, str, str]]:
    """(file, function, method) of every use of a method of one of these names."""
    return {
        (place(module), around, ast.unparse(node))
        for module in MODULES
        for around, node in scopes(module)
        if isinstance(node, ast.Attribute) and node.attr in methods
    }


def makers_of(*classes: str) -> set[str]:
    """Files that make an instance of one of these classes."""
    return {
        place(module)
        for module in MODULES
        for _, node in scopes(module)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id in classes)
            or (isinstance(node.func, ast.Attribute) and node.func.attr in classes)
        )
    }


# --- order -------------------------------------------------------------------------------


def test_every_module_has_a_room() -> None:
    """A new room needs a floor in the plan first."""
    rooms = {room(module) for module in GRAPH}
    assert rooms <= set(FLOOR_OF), f"without a floor: {sorted(rooms - set(FLOOR_OF))}"


def test_imports_point_downwards() -> None:
    """A room imports lower rooms only, typing-only and in-function imports counted."""
    wrong = [
        f"{place(module)} imports {target}"
        for module, targets in GRAPH.items()
        for target in sorted(targets)
        if room(target) != room(module) and FLOOR_OF[room(target)] >= FLOOR_OF[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_the_public_face() -> None:
    """The face loads everything, so inside the house nobody imports it."""
    wrong = [place(module) for module in GRAPH if "triggerflow" in set(imported(module))]
    assert not wrong


def test_there_are_no_cycles() -> None:
    """No chain of imports, of any kind, leads back to where it began."""
    state: dict[str, int] = {}
    cycles: list[str] = []

    def visit(module: str, path: list[str]) -> None:
        state[module] = 1
        for target in sorted(GRAPH.get(module, ())):
            if state.get(target) == 1:
                cycles.append(" -> ".join([*path[path.index(target) :], target]))
            elif target not in state:
                visit(target, [*path, target])
        state[module] = 2

    for module in sorted(GRAPH):
        if module not in state:
            visit(module, [module])
    assert not cycles, "\n".join(cycles)


def test_errors_import_nothing_of_ours() -> None:
    """The errors are a leaf: whoever raises one needs nothing else."""
    assert GRAPH["triggerflow.errors"] == set()


# --- what is whose -----------------------------------------------------------------------

# Package -> files or rooms (with a slash at the end) that may import it.
OWNERS = {
    "trio": {"engine/", "client.py", "testing/"},
    "cbor2": {"core/codec/"},
    "libipld": {"core/codec/"},
    "cattrs": {"core/codec/"},
    "sqlite3": {"store/sqlite/"},
    "fcntl": {"store/sqlite/locks.py"},
    # app.py for the type of `App.plugins` only.
    "pluggy": {"hooks.py", "plugins.py", "app.py"},
    "click": {"cli/"},
    "rich": {"cli/"},
    "psycopg": {"store/postgres/"},
    # Never: one loop, no pickles, no processes of our own, no test runner in the package.
    "asyncio": {"aio.py"},
    "anyio": set(),
    "pickle": set(),
    "marshal": set(),
    "multiprocessing": set(),
    "subprocess": set(),
    "pytest": set(),
    "hypothesis": set(),
}


@pytest.mark.parametrize("package", OWNERS)
def test_a_package_stays_in_its_room(package: str) -> None:
    """Trio, the codecs, SQLite and so on are imported where the plan says, nowhere else."""
    wrong = {
        file
        for file in importers_of(package)
        if not any(
            file == owner or (owner.endswith("/") and file.startswith(owner))
            for owner in OWNERS[package]
        )
    }
    assert not wrong, f"{package} is imported in {sorted(wrong)}"


def test_the_app_imports_pluggy_for_typing_only() -> None:
    """`app.py` names pluggy's types; the plugin manager is made in `plugins.py`."""
    at_run_time = [
        node
        for node in TREES["triggerflow.app"].body
        if isinstance(node, ast.Import | ast.ImportFrom) and "pluggy" in ast.dump(node)
    ]
    assert not at_run_time


def test_dependencies_are_declared() -> None:
    """Whatever is imported is the standard library, ours, or a declared dependency."""
    project = (ROOT.parent / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert listed
    declared = set(re.findall(r'^\s*"([\w-]+)', listed[1], re.MULTILINE))
    # What a backend needs besides is an extra of its name.
    declared |= set(re.findall(r'^postgres = \["([\w-]+)', project, re.MULTILINE))
    packages = {each.split(".")[0] for module in MODULES for each in imported(module)}
    foreign = packages - set(sys.stdlib_module_names) - {"triggerflow"}
    assert foreign <= declared | {"attr"}


# --- time and chance ---------------------------------------------------------------------

CLOCKS = {"time", "random", "secrets", "sched", "timeit"}
READS = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("os", "urandom"),
    ("os", "getrandom"),
    ("os", "times"),
    ("uuid", "uuid1"),
    ("uuid", "uuid4"),
    ("trio", "current_time"),
    ("tempfile", "mkstemp"),
    ("tempfile", "mkdtemp"),
    ("threading", "Timer"),
}


def test_clocks_and_chance_are_read_in_the_engine() -> None:
    """Below the engine, time and chance are arguments; above it, the engine is asked."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        if room(module) == "engine" if module != "triggerflow" else False:
            continue
        names = {each.split(".")[0] for each in imported(module)} & CLOCKS
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.ImportFrom) and node.module in {"uuid", "os", "time"}:
                names |= {each.name for each in node.names if (node.module, each.name) in READS}
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                reads = (node.value.id.lstrip("_"), node.attr)
                if reads in READS:
                    names.add(".".join(reads))
        if names:
            found[place(module)] = names
    # The driver makes `random.Random(seed)`, a pure function of its seed: see below.
    assert found.pop("core/driver.py", None) == {"random"}
    # The lint names them, to find them in flows; it reads none.
    found.pop("flows/hazards.py", None)
    assert not found


def test_the_drivers_chance_is_seeded() -> None:
    """The driver takes from `random` the class alone, and always gives it a seed."""
    tree = TREES["triggerflow.core.driver"]
    (alias,) = [
        each.asname or each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for each in node.names
        if each.name == "random"
    ]
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == alias]
    seeded = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) == (alias, "Random")
        and node.args
    ]
    assert uses
    assert len(seeded) == len(uses)


def test_the_engine_reads_the_wall_clock_in_one_place() -> None:
    """Within the engine, wall time and chance come from `engine/clock.py` alone.

    `time.monotonic` paces a thread here and there; it is no time that could be stored.
    """
    wrong = []
    for module in MODULES:
        if not module.startswith("triggerflow.engine.") or place(module) == "engine/clock.py":
            continue
        names = {each.split(".")[0] for each in imported(module)}
        wrong += [f"{place(module)}: {each}" for each in names & {"secrets", "random", "uuid"}]
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                wrong.append(f"{place(module)}:{node.lineno}: from time import")
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and ((node.value.id, node.attr) in READS or node.value.id == "time")
                and (node.value.id, node.attr)
                not in {("time", "monotonic"), ("trio", "current_time")}
            ):
                wrong.append(f"{place(module)}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong


def test_sql_reads_no_clock() -> None:
    """No SQL asks the database for time or chance: it gets them as values."""
    reads = re.compile(
        r"CURRENT_(TIME|DATE|TIMESTAMP)|\b(strftime|julianday|unixepoch|randomblob|random)\s*\("
        r"|\b(date|time|datetime)\s*\(\s*'now'",
        re.IGNORECASE,
    )
    texts = {
        file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
        for file in ROOT.rglob("*.sql")
    }
    for module in MODULES:
        if module.startswith("triggerflow.store"):
            texts[place(module)] = " ".join(
                node.value
                for node in ast.walk(TREES[module])
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            )
    assert any(name.endswith(".sql") for name in texts)
    assert [name for name, text in texts.items() if reads.search(text)] == []


# --- who writes a log --------------------------------------------------------------------


def test_turns_are_made_in_one_place() -> None:
    """Entries and turns are made by the turn, blocks by the executor, and by no one else.

    The conformance suite makes them too: it stands in for an engine.
    """
    suite = {name for name in map(place, MODULES) if name.startswith("testing/store_checks/")}
    assert makers_of("LogRow") - suite == {"engine/turn.py", "engine/drive.py"}
    assert makers_of("Turn") - suite == {"engine/turn.py"}
    assert makers_of("Block") - suite == {"engine/executor.py"}
    assert makers_of("Batch") - suite == {"engine/committer.py"}


def test_transactions_of_steps_are_asked_for_in_one_place() -> None:
    """A step's transaction writes an inbox row; one place asks the store for it."""
    suite = {name for name in map(place, MODULES) if name.startswith("testing/store_checks/")}
    assert makers_of("Transact") - suite == {"engine/transactions.py"}
    callers = {file for file, _, call in callers_of("transact") if "store" in call}
    assert callers - suite == {"engine/transactions.py"}


COMMITS = {
    # The only caller of a store's commit.
    ("engine/committer.py", "Committer._commit", "self._store.commit"),
    # The only writers of a log: a turn, and a block in its stead.
    ("engine/executor.py", "Executor._turn", "self._committer.submit"),
    ("engine/executor.py", "Executor._block", "self._committer.submit"),
    # Instances of which the store knows more than their owner.
    ("engine/executor.py", "Executor._hand_back", "self._committer.submit"),
    # What steps say of their progress.
    ("engine/heartbeats.py", "Heartbeats.submit", "self._committer.submit"),
    ("engine/heartbeats.py", "Pulse.send", "self._heartbeats.submit"),
    # Queued calls: claimed, and answered.
    ("engine/tasks.py", "Tasks.claim", "self._committer.ask"),
    ("engine/tasks.py", "Tasks._answer", "self._committer.submit"),
    # The committer's own longer forms.
    ("engine/committer.py", "Committer.ask", "self.submit"),
    ("engine/committer.py", "Committer.ask_all", "self.submit"),
    # Appends and dispatches.
    ("engine/arrivals.py", "Arrivals._commit", "self._committer.ask"),
    ("engine/arrivals.py", "Arrivals._commit", "self._committer.ask_all"),
    ("engine/arrivals.py", "Arrivals._dispatch", "self._committer.ask"),
    # Instances that a drain returns.
    ("engine/draining.py", "Draining._hand_back", "self._committer.ask"),
    # Claims, and a heartbeat by an empty release.
    ("engine/keeper.py", "Keeper._claim_instances", "self._committer.ask"),
    ("engine/keeper.py", "Keeper._keep_lease", "self._committer.ask"),
    # Starts, messages, unblocks.
    ("engine/starting.py", "Starting.start", "self._committer.ask"),
    ("engine/sending.py", "Sending._ask", "self._committer.ask"),
    # Walks over history, and firings that are dispatched again.
    ("engine/backfill.py", "Backfills._page", "self._committer.ask"),
    ("engine/redispatch.py", "Redispatcher.carry_out", "self._committer.ask_all"),
    # Waits for activities: hits, and how far they were looked at.
    ("engine/watching.py", "Watching._commit", "self._committer.ask"),
}


def test_only_these_commit() -> None:
    """The callers of the committer and of a store's commit are these, and no others."""
    found = {
        (file, function, call)
        for file, function, call in callers_of("submit", "ask", "ask_all", "commit")
        # The suite stands in for an engine; the reader only reads; a thread passes verbs on.
        if not file.startswith("testing/store_checks/")
        and call not in ("self._reader.ask", "thread.ask")
    }
    assert found - COMMITS == set(), "new callers"
    assert COMMITS - found == set(), "callers that are no more"


def test_only_the_store_of_turns_writes_log_rows() -> None:
    """In the store, one module inserts into the log; only retention takes anything away."""
    inserts, changes = set(), set()
    for module in MODULES:
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if re.search(r"\b(INSERT|REPLACE)\b.*\bINTO\s+log\b", node.value):
                    inserts.add(place(module))
                if re.search(r"\b(UPDATE|DELETE FROM)\s+(log|activity|firing)\b", node.value):
                    changes.add(place(module))
    assert inserts == {f"store/{backend}/turns.py" for backend in ("sqlite", "postgres")}
    # Logs of generations that nobody keeps, and the log among the tables of what is removed.
    # Firings are written over where they started nothing.
    # PostgreSQL takes activities back that only a turn wanted which lost.
    assert changes == {
        "store/sqlite/firings.py",
        "store/sqlite/generations.py",
        "store/sqlite/retention.py",
        "store/postgres/activities.py",
        "store/postgres/firings.py",
        "store/postgres/generations.py",
        "store/postgres/retention.py",
    }


# --- size and faces ----------------------------------------------------------------------

# Module -> (most lines, why it is one idea all the same).
LONG = {
    "core/driver.py": (850, "the drive is one loop over one state, pure and read as a whole"),
    "core/effects.py": (520, "the catalogue of effects: many small classes of one form"),
    "engine/keeper.py": (475, "what one worker claims and keeps alive, round by round"),
    "engine/arrivals.py": (465, "how an activity is planned, by whichever way it comes"),
    "store/operations.py": (460, "the catalogue of operations: what each one promises"),
    "triggers/trigger.py": (450, "every field of a trigger, checked and in normal form"),
    "store/protocol.py": (460, "what a backend offers: every verb with its promise"),
    "store/sqlite/store.py": (530, "every verb of the protocol, each a few lines"),
    "store/postgres/standing.py": (480, "all that a batch locks and reads, in the one order"),
    "store/postgres/store.py": (540, "every verb of the protocol, each a few lines"),
    "engine/executor.py": (485, "the durability guarantee stands in one file"),
    "engine/engine.py": (480, "the verbs over one open store"),
    "errors.py": (550, "the catalogue of public errors: a leaf that must not be many modules"),
}


def test_modules_are_short() -> None:
    """No module is over 400 lines, but for a short list with a reason each."""
    lines = {
        place(module): len(file.read_text(encoding="utf-8").splitlines())
        for module, file in MODULES.items()
    }
    long = {
        name: count for name, count in lines.items() if count > LONG.get(name, (400, ""))[0]
    }
    assert not long
    assert [name for name in LONG if lines.get(name, 0) <= 400] == [], "no longer long"


def test_faces_hold_no_code() -> None:
    """An ``__init__.py`` has a docstring, re-exports and ``__all__``; the root's loads late."""
    wrong = []
    for name in FACES - {"triggerflow"}:
        rest = TREES[name].body[1:]
        if ast.get_docstring(TREES[name]) is None:
            wrong.append(f"{place(name)}: no docstring")
        exported = set()
        for node in rest:
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                continue
            if isinstance(node, ast.ImportFrom):
                exported |= {each.asname for each in node.names}
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                listed = set(ast.literal_eval(node.value))
                if listed != exported:
                    wrong.append(f"{place(name)}: __all__ differs: {listed ^ exported}")
            else:
                wrong.append(f"{place(name)}:{node.lineno}: {ast.unparse(node)[:60]}")
    assert not wrong


# --- the public face ---------------------------------------------------------------------

# fmt: off
PUBLIC = """
    Activity ActivityRejected App Appended CID Client DecodingRefused DefinitionError Diverged
    Done DuplicateTrigger EffectMisused EncodingRefused Engine EngineClosed Entry Failed Failure
    Firing Flow FlowCancelled FlowRanAway Guard Instance InstanceConflict InstanceEnded
    InstanceRemoved Drained Statistics
    InternalError KeyTaken PatternError Pending PluginError Rejected Replay RetryAfter
    RetryPolicy SchemaTooNew Signal SignalConflict StepError StepFailed StoreError Suspended
    TimedOut Trigger TriggerflowError UnknownFlow UnknownInstance WaitTimedOut Won call cid_of
    compile_pattern days decode_document define_trigger drive encode_document flow gather
    hookimpl hours minutes now parse_json patched race random side_effect sleep sleep_until
    step_context uuid4 wait_signal SignalRefused inbox NoStep trusted ChildFailed ChildRef
    Continued TooDeep cancel child compensate compensate_all continue_as_new emit join
    set_attributes signal spawn wait_activity AttemptOver Progress Patch Transaction transaction
    TransactionError Step step Task Backfill Redispatched UnknownTrigger
    Envelope Head Incoming activity_cid Explained Explanation
    Reason UnknownActivity
    Batch Concurrency Control Debounce Hold RateLimit Singleton Throttle
""".split()  # noqa: SIM905
# fmt: on


def typed_names() -> dict[str, str]:
    """Name -> home of what type checkers see: the face's TYPE_CHECKING block."""
    (block,) = [node for node in TREES["triggerflow"].body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "_TYPE_CHECKING"
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        for each in node.names:
            assert each.asname == each.name, f"{each.name} is not re-exported as itself"
            assert each.name not in found, f"{each.name} twice"
            found[each.name] = node.module or ""
    return found


def test_type_checkers_see_what_is_there() -> None:
    """The names for type checkers and the late-loading table agree, home by home."""
    assert typed_names() == triggerflow._HOME_OF
    assert len(triggerflow._HOME_OF) == sum(map(len, triggerflow._HOMES.values()))


def test_the_public_names_are_these() -> None:
    """The public face changes on purpose only: edit the list here when you mean it."""
    assert sorted(triggerflow.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(triggerflow))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_loads(name: str) -> None:
    """Each name can be imported, and is the very object of its home."""
    found = getattr(triggerflow, name)
    assert found is getattr(importlib.import_module(triggerflow._HOME_OF[name]), name)
    assert callable(found)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name says so, and doesn't look like a broken import."""
    with pytest.raises(AttributeError, match="has no attribute 'aplications'"):
        _ = triggerflow.aplications


def test_every_public_error_is_a_triggerflow_error() -> None:
    """One root for all errors; what unwinds a flow or step is no ``Exception``."""
    for name in PUBLIC:
        found = getattr(triggerflow, name)
        if isinstance(found, type) and issubclass(found, BaseException):
            if name in ("FlowCancelled", "AttemptOver"):
                assert not issubclass(found, Exception)
            elif name != "RetryAfter":
                assert issubclass(found, triggerflow.TriggerflowError), name


def test_the_face_loads_late() -> None:
    """Importing triggerflow and defining a flow loads no trio, no SQLite, no command line."""
    script = (
        "import sys, triggerflow as tf\n"
        "late = {'trio', 'sqlite3', 'click', 'rich', 'pluggy', 'cbor2'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
        "@tf.flow\n"
        "def welcome(activity):\n"
        "    yield tf.sleep(1)\n"
        "late = {'trio', 'sqlite3', 'click', 'rich'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT.parent,
    )
    assert found.returncode == 0, found.stderr
