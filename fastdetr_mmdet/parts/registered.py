"""Read this package's registered parts from registries, signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import mmdet.registry
import mmengine.registry
from mmengine.registry import Registry

from ..models.parts import Field, Part, Transformer

PACKAGE = __name__.split(".")[0]
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

# Role (folder or module) -> config key of such parts, in the order of the pages; other roles come
# last.
SLOTS = {
    "detectors": "model",
    "backbones": "model.backbone",
    "positions": "model.positional_encoding",
    "transformers": "model.transformer",
    "encoders": "model.transformer.encoder",
    "queries": "model.transformer.queries",
    "decoders": "model.transformer.decoder",
    "self_attention": "model.transformer.decoder.self_attn",
    "aligners": "model.transformer.decoder.aligner",
    "spatial_priors": "model.transformer.decoder.spatial_prior",
    "cross_attention": "model.transformer.decoder.cross_attn",
    "heads": "model.bbox_head",
    "losses": "model.bbox_head.loss_cls",
    "proposal_losses": "model.bbox_head.proposal_loss",
    "matchers": "model.train_cfg.assigner",
    "match_costs": "model.train_cfg.assigner.match_costs",
    "hooks": "default_hooks or custom_hooks",
    "distributed": "strategy",
    "initializers": "init_cfg",
    "grouped_constructor": "optim_wrapper.constructor",
    "horizon_warm_up_lr": "param_scheduler",
}
# Arguments for building a part to read its declarations.
_SMALL = dict(embed_dims=8, num_layers=1, num_heads=2, num_queries=2, feedforward_channels=4)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a constructor: name and default as Python code (None: no default)."""

    name: str
    default: str | None
    text: str

    def __str__(self) -> str:
        return self.name if self.default is None else f"{self.name}={self.default}"


@dataclass(frozen=True)
class Registered:
    """A registered class of this package and its docstring.

    Args:
        name: Name in configs.
        role: Folder or module of this package.
        registry: Import path of its registry.
        cls: The class.
    """

    name: str
    role: str
    registry: str
    cls: type

    @cached_property
    def paragraphs(self) -> list[str]:
        """Paragraphs of the docstring without arguments and shapes; each list item is one."""
        text = inspect.cleandoc(self.cls.__doc__ or "")
        text = re.sub(r"\n\n(Args|Attributes|Shape):\n(?:(?!\n\n\S).)*", "", text, flags=re.DOTALL)
        return [_join(x) for part in text.split("\n\n") for x in re.split(r"\n(?=- )", part)]

    @property
    def summary(self) -> str:
        """First paragraph of the docstring."""
        return self.paragraphs[0]

    @property
    def paper(self) -> str:
        """The sentence after 'Paper:', without its full stop; 'none' without one."""
        for paragraph in self.paragraphs:
            if paragraph.startswith("Paper: "):
                # A sentence ends before a capital letter; "et al. 2021", "Eq. 3" and "A.4" do not
                # end one.
                return re.split(r"\.(?:\s+(?=[A-Z`])|$)", paragraph[len("Paper: ") :])[0]
        return "none"

    @property
    def file(self) -> str:
        """Path of the source file from the root of the repository."""
        return self.cls.__module__.replace(".", "/") + ".py"

    @property
    def foreign(self) -> str:
        """Owner of the parameters, if the constructor is not this package's; else ''."""
        owner = next(cls for cls in self.cls.__mro__ if "__init__" in vars(cls))
        if _is_ours(owner):
            return ""
        return f"those of {owner.__module__.split('.')[0]}'s {owner.__name__}"

    @cached_property
    def described(self) -> dict[str, str]:
        """Parameter -> its text in the docstring's Args."""
        return _described(self.cls)

    @cached_property
    def parameters(self) -> list[Parameter]:
        """Parameters of the part's own constructor, including '**kwargs'."""
        return _parameters(self.cls) if "__init__" in vars(self.cls) else []

    @cached_property
    def inherited(self) -> list[Parameter]:
        """Parameters that '**kwargs' passes to constructors of this package."""
        own = {parameter.name for parameter in self.parameters}
        return [
            parameter
            for owner in list(_constructors(self.cls))[1:]
            if _is_ours(owner)
            for parameter in _parameters(owner)
            if parameter.name not in own and not parameter.name.startswith("*")
        ]

    @cached_property
    def declares(self) -> dict[str, list[str]]:
        """Fields that the part reads and makes, with the argument that each depends on, if any."""
        needed = {p.name for p in self.parameters if p.default is None and p.name[0] != "*"}
        contains_parts = issubclass(self.cls, Transformer) or needed - set(_SMALL)
        if not issubclass(self.cls, Part) or contains_parts:
            return {}
        choices: dict[str, tuple] = {}
        for owner in _constructors(self.cls):
            for name, hint in typing.get_type_hints(owner.__init__).items():  # type: ignore[misc]
                if hint is bool:
                    choices.setdefault(name, (False, True))
                union = typing.get_origin(hint) in (typing.Union, types.UnionType)
                for one in typing.get_args(hint) if union else (hint,):
                    if typing.get_origin(one) is Literal:
                        choices.setdefault(name, typing.get_args(one))
        accepted = {p.name for owner in _constructors(self.cls) for p in _signature(owner)}
        if "num_levels" in accepted:
            choices["num_levels"] = (3,)
        small = {name: value for name, value in _SMALL.items() if name in accepted}
        plain = self.cls(**small)
        found = {
            verb: [field.name for field in Field if field in getattr(plain, verb)]
            for verb in ("reads", "makes")
        }
        for name, value in ((name, value) for name, values in choices.items() for value in values):
            try:
                other = self.cls(**dict(small, **{name: value}))
            except ValueError:  # needs another argument, too
                continue
            for verb, fields in found.items():  # sorted, because the order of sets varies
                new = getattr(other, verb) - getattr(plain, verb)
                fields += [f"{field.name} ({name}={value!r})" for field in Field if field in new]
        return found


@dataclass(frozen=True)
class Role:
    """A folder or module of this package and the parts registered in it."""

    name: str
    text: str
    slot: str | None
    parts: tuple[Registered, ...]


def registered_roles() -> list[Role]:
    """All roles and their parts, in the order of ``SLOTS``, parts by name."""
    by_role: dict[str, list[Registered]] = {}
    for part in _registered():
        by_role.setdefault(part.role, []).append(part)
    order = [*(role for role in SLOTS if role in by_role), *sorted(set(by_role) - set(SLOTS))]
    return [
        Role(
            role,
            _join((sys.modules[_room(by_role[role][0].cls)].__doc__ or "").split("\n\n")[0]),
            SLOTS.get(role),
            tuple(sorted(by_role[role], key=lambda part: part.name)),
        )
        for role in order
    ]


def _registered() -> Iterator[Registered]:
    seen: set[int] = set()
    for module in (mmengine.registry, mmdet.registry):
        for attribute, registry in vars(module).items():
            if not isinstance(registry, Registry) or id(registry) in seen:
                continue
            seen.add(id(registry))
            for name, cls in registry.module_dict.items():
                if _is_ours(cls):
                    role = _room(cls).rpartition(".")[2]
                    yield Registered(name, role, f"{module.__name__}.{attribute}", cls)


def _room(cls: type) -> str:
    """The class's role: a folder below models or engine, or a module."""
    names = cls.__module__.split(".")
    return ".".join(names[: 4 if names[2] in ("layers", "optimizers") else 3])


def _is_ours(cls: Any) -> bool:
    return getattr(cls, "__module__", "").startswith(f"{PACKAGE}.")


def _constructors(cls: type) -> Iterator[type]:
    """Classes whose constructors get a config's values, through '**kwargs'."""
    for owner in cls.__mro__:
        if "__init__" in vars(owner):
            yield owner
            if not any(p.kind == p.VAR_KEYWORD for p in _signature(owner)):
                return


def _signature(cls: type) -> list[inspect.Parameter]:
    return list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]


def _parameters(cls: type) -> list[Parameter]:
    described, found = _described(cls), []
    for parameter in _signature(cls):
        default = None if parameter.default is parameter.empty else repr(parameter.default)
        stars = "*" * (parameter.kind in _VARIADIC) + "*" * (parameter.kind == _VARIADIC[1])
        name = stars + parameter.name
        found.append(Parameter(name, default, described.get(name, "")))
    return found


def _described(cls: type) -> dict[str, str]:
    """'a, b: text' with indented continuation lines -> {'a': text, 'b': text}."""
    found: dict[str, str] = {}
    args = re.search(r"\nArgs:\n((?:(?!\n\n\S).)*)", inspect.cleandoc(cls.__doc__ or ""), re.DOTALL)
    for entry in re.split(r"\n(?=\s{4}\S)", "\n" + args[1]) if args else []:
        names, colon, text = entry.strip().partition(": ")
        if colon:
            found |= {name: _join(text) for name in names.split(", ")}
    return found


def _join(text: str) -> str:
    return " ".join(text.split())
