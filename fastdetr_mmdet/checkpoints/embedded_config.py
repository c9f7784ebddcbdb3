"""Check configs inside checkpoints: only plain data that names known parts is run.

A config is a Python program, and even plain data builds whatever its ``type`` entries name:
``dict(type='os.system', ...)`` is a command. Configs inside checkpoints are accepted only in the
form of mmengine's dumps, and with registered parts only.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NoReturn

from mmengine.config import Config
from mmengine.registry import Registry

from ..utils.cli import UserError

# Where mmengine's inferencers and --resume look for a config.
_PLACES = (("message_hub", "runtime_info", "cfg"), ("meta", "cfg"), ("meta", "config"))
# Keys that make mmengine import modules, or run another file.
_IMPORTING = ("custom_imports", "default_scope", "_scope_")
_READING = ("_base_", "_delete_")


class EmbeddedConfigError(UserError):
    """The config in a checkpoint was refused."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The config in this checkpoint was refused: {why}. Give the config yourself, "
            "DetInferencer(config, weights), or load the weights alone (load_from, not resume)."
        )
        self.why = why


def disarm(content: Any) -> None:
    """Replace configs in a checkpoint that ``check_config`` refuses by code that raises the error.

    So the error comes only if the config is used; weights always load.
    """
    for owner, last, text in _texts(content):
        try:
            check_config(text)
        except EmbeddedConfigError as error:
            # mmengine would replace {{...}} in the text
            why = repr(error.why).replace("{", r"\x7b")
            owner[last] = (
                f"raise __import__({__name__!r}, fromlist=['_']).EmbeddedConfigError({why})\n"
            )


def config_in(content: Any) -> Config:
    """Read the training config that a checkpoint holds.

    Raises:
        EmbeddedConfigError: if there is none, or ``check_config`` refuses it.
    """
    for _, _, text in _texts(content):
        if text:
            check_config(text)
            return Config.fromstring(text, ".py")
    _refuse("there is none")


def _texts(content: Any) -> Iterator[tuple[dict, str, str]]:
    """Yield each config in a checkpoint, with the dict that holds it and its key."""
    for *parents, last in _PLACES:
        owner = content
        for key in parents:
            owner = owner.get(key) if isinstance(owner, dict) else None
        if isinstance(owner, dict) and isinstance(owner.get(last), str):
            yield owner, last, owner[last]


def check_config(text: str) -> None:
    """Accept a config of plain data that names only registered or imported parts.

    ``{{...}}`` is refused, because mmengine would replace it before running the text; dumps have
    none.

    Raises:
        EmbeddedConfigError: if the config is refused; the message has the reason and the fix.
    """
    if "{{" in text:
        _refuse("it holds '{{', a variable, which a dumped config never has")
    for key, value in _entries(read_plain_config(text)):
        if key in _READING:
            _refuse(f"it has the entry {key}, which a dumped config never has")
        elif key == "type":
            _check_type(value)
        elif key in _IMPORTING:
            names = value.get("imports", ()) if isinstance(value, dict) else value
            for name in [names] if isinstance(names, str) else names or ():
                if not str(name).startswith("fastdetr_mmdet.") and str(name) not in sys.modules:
                    _refuse(f"{key} would import {name}; import it yourself if you trust it")


def other_size(config: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> str:
    """Return a warning if a test's image size differs from the training's in a checkpoint."""
    try:
        trained = read_plain_config(str((checkpoint.get("meta") or {}).get("cfg") or ""))
    except EmbeddedConfigError:
        return ""
    before, now = _tested_scale(trained), _tested_scale(config)
    if before is None or now is None or before == now:
        return ""
    return (
        f"The checkpoint was trained with a test pipeline that resizes images to {before}; this "
        f"config's resizes them to {now}, and AP may be lower. To test as in training: "
        f"--cfg-options image_scale={before[0]},{before[1]}"
    )


def _tested_scale(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Scale of the first resize in the test pipeline, if there is one."""
    try:
        steps = config["test_dataloader"]["dataset"]["pipeline"]
        scale = next(step["scale"] for step in steps if "scale" in step)
        return tuple(map(int, scale))
    except (KeyError, TypeError, ValueError, StopIteration):
        return None


def read_plain_config(text: str) -> dict[str, Any]:
    """Read a config's variables without running it.

    Raises:
        EmbeddedConfigError: if the config has anything but assignments of plain data.
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        _refuse(f"it cannot be read ({error})")
    values = {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                try:
                    values[name] = ast.literal_eval(_DictCalls().visit(value))
                except (ValueError, TypeError, RecursionError, MemoryError):
                    code = ast.unparse(statement)[:80]
                    _refuse(f"line {statement.lineno} holds code, not only plain data: {code}")
            case _:
                _refuse(f"line {statement.lineno} is not an assignment: it holds code")
    return values


class _DictCalls(ast.NodeTransformer):
    """Turns ``dict(a=1)``, as mmengine dumps it, into ``{'a': 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Keeps other calls, which are refused later."""
        self.generic_visit(node)
        match node:
            case ast.Call(ast.Name("dict"), [] | [ast.Dict()], words) if all(w.arg for w in words):
                given: Any = node.args[0] if node.args else ast.Dict([], [])
                keys = [ast.Constant(word.arg) for word in words]
                return ast.Dict([*given.keys, *keys], [*given.values, *(w.value for w in words)])
        return node


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _check_type(name: Any) -> None:
    """Refuse names that are not registered; mmengine would import and call them."""
    scope, _, short = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if scope:
        harmless = scope in sys.modules and short in _registered_names()
    else:  # a name without a dot could only be a module
        harmless = bool(short) and (short in sys.modules or find_spec(short) is None)
        harmless = harmless or short in _registered_names()
    if not harmless:
        _refuse(
            f"type={name!r} is not a registered part, so mmengine would call the Python object of "
            "that name; if it is yours, import its module first"
        )


def _registered_names() -> set[str]:
    """All names in the registries of mmengine and its child packages."""
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    import mmengine.registry

    names: set[str] = set()
    registries = [x for x in vars(mmengine.registry).values() if isinstance(x, Registry)]
    while registries:
        registry = registries.pop()
        names.update(registry.module_dict)
        registries.extend(registry.children.values())
    return names


def _refuse(why: str) -> NoReturn:
    raise EmbeddedConfigError(why)
