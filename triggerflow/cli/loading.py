"""Settings and the app: where they come from, and what to say when the app can't be had."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

if TYPE_CHECKING:
    from types import ModuleType

    from triggerflow.app import App

_PROJECT: Final = "pyproject.toml"
_KEYS: Final = ("app", "store", "triggers")


class Refused(click.ClickException):
    """A command can't do what was asked; prints as ``error: ...``, exit status 1."""

    def show(self, file: Any = None) -> None:
        """Print it on stderr."""
        click.secho("error: ", fg="red", bold=True, nl=False, err=file is None, file=file)
        click.echo(self.message, err=file is None, file=file)


class Setting(NamedTuple):
    """A setting's value, and who said so, for messages."""

    value: str
    source: str


def read_setting(name: str, flag: str | None) -> Setting | None:
    """Read a setting of `_KEYS`: the flag, then the environment, then pyproject.toml.

    Raises:
        Refused: pyproject.toml can't be read, or holds no text there.
    """
    if flag:
        return Setting(flag, f"--{name}")
    variable = f"TRIGGERFLOW_{name.upper()}"
    value = os.environ.get(variable)
    if value:
        return Setting(value, variable)
    found = _project().get(name)
    return None if found is None else Setting(found, f"{_PROJECT} [tool.triggerflow] {name} =")


def _project() -> dict[str, str]:
    path = Path(_PROJECT)
    if not path.is_file():
        return {}
    # Here, not above: most calls are made outside a project, or with flags.
    import tomllib

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{_PROJECT}: {error}") from error
    section = table.get("tool", {}).get("triggerflow", {})
    if not isinstance(section, dict):
        raise Refused(f"{_PROJECT}: [tool.triggerflow] is no table")
    for key, value in section.items():
        if key not in _KEYS:
            raise Refused(
                f"{_PROJECT}: [tool.triggerflow] has {key!r}, expected {', '.join(_KEYS)}"
            )
        if not isinstance(value, str):
            raise Refused(f"{_PROJECT}: [tool.triggerflow] {key} is {value!r}, expected text")
    return section


def load_app(setting: Setting) -> App:
    """Import the app behind ``module:attr``, ``module`` or ``path/to/file.py:attr``.

    Raises:
        Refused: it can't be imported, has no such attribute, or that is no `App`.
    """
    from triggerflow.app import App

    target, _, attribute = setting.value.partition(":")
    what = f"{setting.source} {setting.value}"
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _import(target, what)
    found: Any = module
    for part in (attribute or "app").split("."):
        missing = object()
        inner = getattr(found, part, missing)
        if inner is missing:
            raise Refused(f"{what}: {target} has no {part!r}; {_nearest(found, part, App)}")
        found = inner
    if not isinstance(found, App):
        raise Refused(
            f"{what}: {attribute or 'app'} is {_kind(found)}, expected a triggerflow.App; "
            f"{_nearest(module, attribute or 'app', App)}"
        )
    return found


def _kind(found: Any) -> str:
    kind = type(found).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def _nearest(module: Any, wanted: str, kind: type) -> str:
    import difflib

    names = [name for name in vars(module) if not name.startswith("__")]
    apps = [name for name in names if isinstance(getattr(module, name), kind)]
    if apps:
        return f"its apps: {', '.join(apps)}"
    close = difflib.get_close_matches(wanted, names, n=3)
    return f"did you mean {', '.join(close)}?" if close else "it holds no App"


def _import(target: str, what: str) -> ModuleType:
    import importlib

    try:
        if target.endswith(".py") or "/" in target:
            return _import_file(Path(target), what)
        return importlib.import_module(target)
    except Refused:
        raise
    except ModuleNotFoundError as error:
        if error.name and (target == error.name or target.startswith(f"{error.name}.")):
            raise Refused(
                f"{what}: there is no module {error.name!r} in {Path.cwd()} or on sys.path"
            ) from error
        raise _broken(target, what, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(target, what, error) from error


def _import_file(path: Path, what: str) -> ModuleType:
    import importlib.util

    if not path.is_file():
        raise Refused(f"{what}: there is no file {path}")
    path = path.resolve()
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    # A file may be called like a module that is loaded already.
    name = path.stem if known is None else f"triggerflow_app_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Refused(f"{what}: {path} is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _broken(target: str, what: str, error: BaseException) -> Refused:
    where = _where(error)
    place = f" (at {where})" if where else ""
    return Refused(f"{what}: importing {target} failed: {type(error).__name__}: {error}{place}")


def _where(error: BaseException) -> str:
    """``file:line`` of the user's own line at fault."""
    import sysconfig
    import traceback

    if isinstance(error, SyntaxError) and error.filename:
        return f"{short_path(error.filename)}:{error.lineno}"
    paths = sysconfig.get_paths()
    ours = str(Path(__file__).resolve().parents[1])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ") and frame.filename != __file__
    ]
    foreign = (ours, paths["stdlib"], paths["purelib"], paths["platlib"])
    own = [frame for frame in frames if not frame.filename.startswith(foreign)]
    last = (own or frames)[-1:]
    return f"{short_path(last[0].filename)}:{last[0].lineno}" if last else ""


def short_path(location: str) -> str:
    """A path, or ``file:line``, as seen from the working directory where it lies in it."""
    here = f"{Path.cwd()}{os.sep}"
    return location.removeprefix(here)
