"""What a flow may not call: clocks, chance, the world outside, and what to use instead.

A table of dotted names, by what they do. An object is looked up by the path on which the
code reaches it (``time.time``), and by identity, so that ``from os import urandom`` is
found too although ``urandom`` calls its home ``posix``. Nothing is imported to look.
"""

from __future__ import annotations

import datetime as dt
import os
import pathlib
import re
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import attrs


@attrs.frozen
class Hazard:
    """Why a call does not belong into a flow.

    Attributes:
        rule: its short name.
        does: what the call does, in words that follow its name.
        remedy: what to write instead.
        severity: ``error`` or ``warning``.
    """

    rule: str
    does: str
    remedy: str
    severity: str = "error"


_STEP: Final = "do it in a step: `yield tf.call(fn, ...)`"

CLOCK: Final = Hazard("clock", "reads the clock", "take the time with `yield tf.now()`")
RANDOM: Final = Hazard(
    "random",
    "is another value in each replay",
    "use `yield tf.random()`, or seed a generator with it: random.Random((yield tf.random()))",
)
UUID: Final = Hazard(
    "random", "is another value in each replay", "make it with `yield tf.uuid4()`"
)
SECRET: Final = Hazard("random", "is another value in each replay", _STEP)
IO: Final = Hazard("io", "does I/O", _STEP)
OUTPUT: Final = Hazard(
    "output",
    "shows again in each replay",
    "say it in a step, or declare it with `# tf: trust` on the line",
    "warning",
)
ENVIRONMENT: Final = Hazard(
    "environment",
    "reads the environment, which differs from worker to worker",
    "record it with `yield tf.side_effect(lambda: ...)`, or pass it in the input",
)
THREAD: Final = Hazard(
    "thread",
    "runs beside the flow, where no replay sees it",
    "do it in a step, and side by side with `yield tf.gather(tf.call(...), ...)`",
)
ASYNC: Final = Hazard(
    "async",
    "needs an event loop, which a flow has none of",
    "await it in an async step: `yield tf.call(fn, ...)`; `tf.gather` and `tf.race` run "
    "effects side by side",
)
SLEEP: Final = Hazard(
    "sleep", "holds up the worker and is gone after a crash", "wait with `yield tf.sleep(...)`"
)
DYNAMIC: Final = Hazard(
    "dynamic",
    "runs code that the lint can't follow",
    "call functions by name, or declare the line with `# tf: trust`",
    "warning",
)
IDENTITY: Final = Hazard(
    "identity",
    "differs from process to process",
    "use a key of your own, such as a field of the value",
    "warning",
)

_TABLE: Final = """
CLOCK time: time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time
    process_time_ns thread_time thread_time_ns clock_gettime clock_gettime_ns localtime
    gmtime ctime asctime strftime
CLOCK timeit: default_timer timeit repeat
CLOCK os: times
CLOCK trio: current_time
RANDOM random: random randint randrange choice choices sample shuffle uniform triangular
    gauss betavariate expovariate gammavariate lognormvariate normalvariate vonmisesvariate
    paretovariate weibullvariate getrandbits randbytes binomialvariate seed setstate
    getstate Random SystemRandom
SECRET secrets: token_bytes token_hex token_urlsafe choice randbelow randbits SystemRandom
SECRET os: urandom getrandom
UUID uuid: uuid1 uuid4 uuid6 uuid7 uuid8 getnode
IO builtins: open input
IO io: open open_code FileIO
IO os: open read write close fdopen remove unlink rename renames replace mkdir makedirs
    rmdir removedirs listdir scandir walk fwalk stat lstat access chmod chown link symlink
    readlink truncate utime pipe fsync system popen statvfs mkfifo
IO os.path: exists lexists isfile isdir islink ismount getsize getmtime getatime getctime
    realpath samefile
IO shutil: copy copy2 copyfile copytree move rmtree disk_usage which make_archive
IO glob: glob iglob
IO tempfile: mkstemp mkdtemp TemporaryFile NamedTemporaryFile TemporaryDirectory gettempdir
IO socket: socket create_connection create_server socketpair getaddrinfo gethostbyname
    gethostbyaddr getnameinfo
IO subprocess: run call check_call check_output Popen getoutput getstatusoutput
IO requests: get post put patch delete head options request Session session
IO httpx: get post put patch delete head options request stream Client AsyncClient
IO aiohttp: request ClientSession
IO urllib.request: urlopen urlretrieve
IO urllib3: request PoolManager
IO http.client: HTTPConnection HTTPSConnection
IO smtplib: SMTP SMTP_SSL LMTP
IO ftplib: FTP FTP_TLS
IO sqlite3: connect
IO psycopg: connect
IO psycopg2: connect
OUTPUT builtins: print
OUTPUT logging: debug info warning error exception critical log
ENVIRONMENT os: getenv getenvb putenv unsetenv getcwd chdir getpid getppid getuid getlogin
    uname cpu_count getloadavg
ENVIRONMENT socket: gethostname getfqdn
ENVIRONMENT platform: node platform uname system release machine
ENVIRONMENT getpass: getuser
THREAD threading: Thread Timer get_ident get_native_id current_thread active_count enumerate
THREAD _thread: start_new_thread get_ident
THREAD multiprocessing: Process Pool Queue SimpleQueue Manager Pipe current_process
THREAD concurrent.futures: ThreadPoolExecutor ProcessPoolExecutor wait as_completed
THREAD os: fork forkpty posix_spawn kill abort execv execve execvp _exit
ASYNC asyncio: run gather wait wait_for create_task ensure_future as_completed to_thread
    timeout timeout_at get_event_loop get_running_loop new_event_loop open_connection
    start_server create_subprocess_exec create_subprocess_shell current_task all_tasks
    run_coroutine_threadsafe shield
ASYNC trio: run open_nursery open_file run_process open_tcp_stream move_on_after move_on_at
    fail_after fail_at open_memory_channel to_thread.run_sync from_thread.run
    from_thread.run_sync lowlevel.spawn_system_task lowlevel.current_task
ASYNC anyio: run create_task_group move_on_after fail_after open_file connect_tcp
SLEEP time: sleep
SLEEP asyncio: sleep
SLEEP trio: sleep sleep_until sleep_forever
SLEEP anyio: sleep sleep_until sleep_forever
SLEEP signal: pause
SLEEP select: select
DYNAMIC builtins: eval exec __import__
DYNAMIC importlib: import_module reload
IDENTITY builtins: id hash
"""
# One entry a paragraph: which hazard, in which module, what.
HAZARDS: Final[dict[str, Hazard]] = {
    f"{home}.{name}": globals()[hazard]
    for entry in re.split(r"\n(?=\S)", _TABLE.strip())
    for head, _, names in [entry.partition(":")]
    for hazard, home in [head.split()]
    for name in names.split()
}
_BY_LAST: Final[dict[str, list[str]]] = {}
for _name in HAZARDS:
    _BY_LAST.setdefault(_name.rpartition(".")[2], []).append(_name)

# With so many arguments they depend on nothing else: a seed, a moment.
_PURE_FROM: Final = {
    "time.localtime": 1,
    "time.gmtime": 1,
    "time.ctime": 1,
    "time.asctime": 1,
    "time.strftime": 2,
    "random.Random": 1,
}
_NUMPY: Final = "numpy.random."
_NUMPY_SEEDED: Final = frozenset(
    [
        "default_rng",
        "RandomState",
        "SeedSequence",
        "PCG64",
        "PCG64DXSM",
        "MT19937",
        "Philox",
        "SFC64",
    ]
)
_PATH_IO: Final = frozenset(
    [
        "open",
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
        "touch",
        "mkdir",
        "rmdir",
        "unlink",
        "rename",
        "replace",
        "exists",
        "is_file",
        "is_dir",
        "is_symlink",
        "stat",
        "lstat",
        "iterdir",
        "glob",
        "rglob",
        "walk",
        "resolve",
        "chmod",
        "symlink_to",
        "hardlink_to",
        "readlink",
        "samefile",
        "owner",
        "group",
        "expanduser",
    ]
)
_LOGS: Final = frozenset(
    ["debug", "info", "warning", "warn", "error", "exception", "critical", "log"]
)
_CLOCKS: Final = frozenset({"now", "utcnow", "today"})

# Only these are asked for their name: a proxy may answer anything, or raise.
_METHODS: Final = (BuiltinFunctionType, MethodType)
_NAMED: Final = (type, FunctionType, *_METHODS)


def is_environment(found: Any) -> bool:
    """Whether an object holds the process's environment or arguments."""
    return found is os.environ or found is os.environb or found is sys.argv


def hazard_of(found: Any, path: str, arguments: int) -> Hazard | None:
    """What is wrong with calling an object, or None.

    Args:
        found: the object, or None where its module isn't loaded.
        path: the dotted name on which the code reached it, or "".
        arguments: how many the call gives.
    """
    if path.startswith(_NUMPY):
        name = path.removeprefix(_NUMPY)
        seeded = name in _NUMPY_SEEDED and arguments
        return None if seeded or name in {"Generator", "BitGenerator"} else RANDOM
    name = path if path in HAZARDS else _name_of(found)
    if not name:
        return _bound(found)
    return None if arguments >= _PURE_FROM.get(name, 99) else HAZARDS[name]


def method_hazard(owner: type, instance: Any, name: str) -> Hazard | None:
    """What is wrong with calling a method of an instance, or of a class itself.

    Args:
        owner: the class.
        instance: the object that lives beside the flows; None for one of the flow's own,
            and for the class itself.
        name: the method's.
    """
    if issubclass(owner, pathlib.Path):
        if name in {"cwd", "home"}:
            return ENVIRONMENT
        return IO if name in _PATH_IO else None
    if name in _CLOCKS and issubclass(owner, dt.date):
        return CLOCK
    if instance is None:
        return None
    # By name: neither module is loaded for the lint's sake.
    kinds = {f"{each.__module__}.{each.__name__}" for each in owner.__mro__}
    if "random.Random" in kinds:
        return RANDOM
    if not kinds.isdisjoint({"logging.Logger", "logging.LoggerAdapter"}):
        return OUTPUT if name in _LOGS else None
    if owner.__module__.startswith("numpy.random") and not name.startswith("_"):
        return RANDOM
    printed = name in {"write", "writelines"} and instance is sys.stdout
    return OUTPUT if printed or (name == "write" and instance is sys.stderr) else None


def _bound(found: Any) -> Hazard | None:
    """A built-in method under a name of its own: ``from random import choice``."""
    if not issubclass(type(found), _METHODS):
        return None
    owner, name = found.__self__, found.__name__
    if owner is None or issubclass(type(owner), ModuleType):
        return None
    if issubclass(type(owner), type):
        return method_hazard(owner, None, name)
    return method_hazard(type(owner), owner, name)


def _name_of(found: Any) -> str:
    """The dotted name under which the table has this very object, or ""."""
    if not issubclass(type(found), _NAMED):
        return ""
    last = found.__name__
    return next((name for name in _BY_LAST.get(last, ()) if _loaded(name) is found), "")


def _loaded(dotted: str) -> Any:
    """The object of a dotted name, where its module is loaded."""
    home, _, name = dotted.rpartition(".")
    module = sys.modules.get(home)
    return None if module is None else vars(module).get(name)
