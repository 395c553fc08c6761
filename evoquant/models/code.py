"""Code by its name, and digests of code: an edited network or metric is another one, though name and weights stay.

What is stored under a digest would else be taken for the outcome of the new code.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError, raised_by

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

_VERSIONED = ("torch", "evoquant")  # what these compute is told by their versions
_PLAIN = (int, float, str, bool, bytes, type(None))


def imported(name: str, said: str = "", fault: type[InputError] = InputError) -> Any:
    """The attribute that `module:attribute` names; only of names that the user gave.

    Args:
        name: of it.
        said: what messages have before the name.
        fault: the error that is raised.

    Raises:
        InputError: as `fault`, where it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        found = _module(module)
        if hasattr(found, attribute):
            return getattr(found, attribute)
    except ModuleNotFoundError as error:
        nowhere = f"neither installed, nor on PYTHONPATH, nor in the current folder, {_current_folder()}"
        raise fault(f"{said}{name}: cannot be imported: {error}, which is {nowhere}.") from None
    except ImportError as error:
        raise fault(f"{said}{name}: cannot be imported: {error}.") from None
    except Exception as error:  # whatever the module may raise
        raise fault(f"{said}{name}: importing {module} raised {raised_by(error)}") from error
    place = getattr(found, "__file__", None) or "built in"
    raise fault(f"{said}{name}: cannot be imported: the module {module!r} ({place}) has no attribute {attribute!r}.")


def _module(name: str) -> types.ModuleType:
    """A module that the user has named; one that is found nowhere else may lie in the current folder.

    That folder is then searched last of all, so that no file in it stands in for a module of anyone else; before the
    user has named code in it, nothing is imported from there.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top, folder = name.partition(".")[0], _current_folder()
        if error.name != top or folder is None or not ((folder / f"{top}.py").is_file() or (folder / top).is_dir()):
            raise
        sys.path.append(str(folder))
        importlib.invalidate_caches()
        return importlib.import_module(name)


def _current_folder() -> Path | None:
    """None where it is there no more."""
    try:
        return Path.cwd()
    except OSError:
        return None


def code_digest(objects: Iterable[Any]) -> str:
    """sha256 over the names of functions or classes and the files that define them.

    Without a file it is over their bytecode; so it is for the script that runs, of which other parts may change.
    """
    found = set()
    for one in objects:
        try:
            file = None if getattr(one, "__module__", None) == "__main__" else inspect.getsourcefile(one)
            source = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
        except (TypeError, OSError):  # built in, an instance, or typed in
            source = ""
        source = source or compiled_text(one)
        found.add(f"{getattr(one, '__qualname__', type(one).__qualname__)} {source}")
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


def compiled_text(one: Any, seen: set[int] | None = None) -> str:
    """What a function, or the functions of a class, were compiled to, with plain values that they hold; '' of others.

    Functions and classes of the same module that they name are part of it. Of what was typed into a notebook this is
    all there is to tell one version from the next.
    """
    seen = set() if seen is None else seen  # shared, so that each is looked at once
    if id(one) in seen:
        return ""
    seen.add(id(one))
    if inspect.isclass(one):
        return "\n".join(
            f"{name}: {text}" for name, value in sorted(vars(one).items()) if (text := compiled_text(value, seen))
        )
    function = getattr(one, "__func__", one)
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return ""
    held = [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if _is_filled(cell)]
    held += list(getattr(function, "__defaults__", None) or ())
    around = getattr(function, "__globals__", {})
    named = [around[name] for name in sorted(set(code.co_names)) if name in around]
    held += [value for value in named if isinstance(value, _PLAIN)]
    own = [value for value in named if getattr(value, "__module__", "") == getattr(function, "__module__", None)]
    texts = [repr(value) for value in held if isinstance(value, _PLAIN)]
    return "; ".join([_code_text(code), *texts, *(compiled_text(value, seen) for value in own)])


def _code_text(code: types.CodeType) -> str:
    constants = [
        _code_text(value) if isinstance(value, types.CodeType) else _constant(value) for value in code.co_consts
    ]
    return " ".join([code.co_code.hex(), *code.co_names, *code.co_varnames, *constants])


def _constant(value: Any) -> str:
    """Its `repr`, but of sets, whose order changes from process to process."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def structure_of(network: torch.nn.Module) -> str:
    """What PyTorch prints of a network, and `code_digest` of its modules' classes but for PyTorch's and ours."""
    classes = {type(module) for module in network.modules()}
    foreign = [one for one in classes if one.__module__.partition(".")[0] not in _VERSIONED]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(network)) + (code_digest(foreign) if foreign else "")
