"""The registered parts of this package, read from registries, signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import mmdet.registry
import mmengine.registry
from mmengine.registry import Registry

PACKAGE = __name__.split(".")[0]
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

# Role (folder or module of this package) -> where a config names such a part. In reading order;
# roles that are not here come last.
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
    "matchers": "model.train_cfg.assigner",
    "hooks": "default_hooks or custom_hooks",
    "distributed": "strategy",
    "initializers": "init_cfg",
    "grouped_constructor": "optim_wrapper.constructor",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a constructor: its default as Python writes it (None: it has none)."""

    name: str
    default: str | None
    text: str

    def __str__(self) -> str:
        return self.name if self.default is None else f"{self.name}={self.default}"


@dataclass(frozen=True)
class Part:
    """A registered class of this package and what its docstring says.

    Args:
        name: As a config writes it.
        role: Folder or module of this package.
        registry: Where it is registered, as an import path.
        cls: The class.
    """

    name: str
    role: str
    registry: str
    cls: type

    @cached_property
    def _sections(self) -> dict[str, list[str]]:
        """Section of the docstring -> its paragraphs; '' is what comes before the first."""
        sections: dict[str, list[str]] = {"": []}
        paragraphs = sections[""]
        for paragraph in inspect.cleandoc(self.cls.__doc__ or "").split("\n\n"):
            heading = re.match(r"(Args|Attributes|Raises|Returns|Shape):\n", paragraph)
            if heading:
                paragraphs = sections[heading[1]] = []
                paragraph = paragraph[heading.end() :]
            paragraphs.append(paragraph)
        return sections

    @property
    def summary(self) -> str:
        """First paragraph of the docstring."""
        return _join(self._sections[""][0])

    @property
    def paper(self) -> str:
        """The sentence after 'Paper:', without its full stop; '' where the docstring has none."""
        return self._split_paper()[0]

    @property
    def notes(self) -> list[str]:
        """What else the docstring says before its sections, as paragraphs."""
        notes = [self._split_paper()[1]]
        for paragraph in self._sections[""][1:]:
            if not paragraph.startswith("Paper:"):
                notes += map(_join, re.split(r"\n(?=- )", paragraph))  # a list, point by point
        return [note for note in notes if note]

    def _split_paper(self) -> tuple[str, str]:
        for paragraph in self._sections[""]:
            if paragraph.startswith("Paper:"):
                text = _join(paragraph).removeprefix("Paper: ")
                # A sentence ends before a capital; "et al. 2021", "Eq. 3" and "A.4" go on.
                sentence, *rest = re.split(r"\.(?:\s+(?=[A-Z`])|$)", text, maxsplit=1)
                return sentence, "".join(rest)
        return "", ""

    @property
    def raises(self) -> str:
        """What the constructor raises, as the docstring says it."""
        return _join(" ".join(self._sections.get("Raises", [])))

    @property
    def file(self) -> str:
        """Path of the source file from the root of the repository."""
        return self.cls.__module__.replace(".", "/") + ".py"

    @property
    def constructor(self) -> type | None:
        """The class whose constructor this part has, if it is not one of this package."""
        owner = next(cls for cls in self.cls.__mro__ if "__init__" in vars(cls))
        return None if _is_ours(owner) else owner

    @cached_property
    def described(self) -> dict[str, str]:
        """Parameter -> what the docstring's Args say of it."""
        return _described(self._sections.get("Args", []))

    @cached_property
    def parameters(self) -> list[Parameter]:
        """Of the part's own constructor; '**kwargs' included."""
        if "__init__" not in vars(self.cls):
            return []
        return [_parameter(p, self.described) for p in _signature(self.cls)]

    @cached_property
    def inherited(self) -> list[Parameter]:
        """What '**kwargs' hands on to constructors of this package."""
        found, own = [], {parameter.name for parameter in self.parameters}
        for owner in list(_constructors(self.cls))[1:]:
            if _is_ours(owner):
                described = Part("", "", "", owner).described
                found += [
                    _parameter(p, described) for p in _signature(owner) if str(p.name) not in own
                ]
        return [p for p in found if not p.name.startswith("*")]

    @cached_property
    def accepted(self) -> dict[str, inspect.Parameter]:
        """Every parameter that a config can set, by name."""
        found: dict[str, inspect.Parameter] = {}
        for owner in _constructors(self.cls):
            for parameter in _signature(owner):
                if parameter.kind not in _VARIADIC:
                    found.setdefault(parameter.name, parameter)
        return found

    @cached_property
    def choices(self) -> dict[str, tuple]:
        """Parameters that take one of a few values (a Literal or a bool) -> these values."""
        found: dict[str, tuple] = {}
        for owner in filter(_is_ours, _constructors(self.cls)):
            for name, hint in typing.get_type_hints(owner.__init__).items():  # type: ignore[misc]
                if hint is bool:
                    found.setdefault(name, (False, True))
                elif typing.get_origin(hint) is Literal:
                    found.setdefault(name, typing.get_args(hint))
        return found


@dataclass(frozen=True)
class Role:
    """A folder of this package (or a module of its own) and the parts registered in it."""

    name: str
    text: str
    slot: str | None
    parts: tuple[Part, ...]


def registered_roles() -> list[Role]:
    """All roles and their parts, in the order of ``SLOTS``, parts by name."""
    by_role: dict[str, list[Part]] = {}
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


def _registered() -> Iterator[Part]:
    seen: set[int] = set()
    for module in (mmengine.registry, mmdet.registry):
        for attribute, registry in vars(module).items():
            if not isinstance(registry, Registry) or id(registry) in seen:
                continue
            seen.add(id(registry))
            for name, cls in registry.module_dict.items():
                if _is_ours(cls):
                    role = _room(cls).rpartition(".")[2]
                    yield Part(name, role, f"{module.__name__}.{attribute}", cls)


def _room(cls: type) -> str:
    """The module whose name is the class's role: a folder below models or engine, or a file."""
    names = cls.__module__.split(".")
    return ".".join(names[: 4 if names[2] in ("layers", "optimizers") else 3])


def _is_ours(cls: Any) -> bool:
    return getattr(cls, "__module__", "").startswith(f"{PACKAGE}.")


def _constructors(cls: type) -> Iterator[type]:
    """The classes whose constructors get a config's values, as far as '**kwargs' hands them on."""
    for owner in cls.__mro__:
        if "__init__" in vars(owner):
            yield owner
            if not any(p.kind == p.VAR_KEYWORD for p in _signature(owner)):
                return


def _signature(cls: type) -> list[inspect.Parameter]:
    return list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]


def _parameter(parameter: inspect.Parameter, described: dict[str, str]) -> Parameter:
    default = None if parameter.default is parameter.empty else repr(parameter.default)
    stars = "*" * (parameter.kind in _VARIADIC) + "*" * (parameter.kind == parameter.VAR_KEYWORD)
    name = stars + parameter.name
    return Parameter(name, default, described.get(name, ""))


def _described(paragraphs: list[str]) -> dict[str, str]:
    """'a, b: text' with indented continuation lines -> {'a': text, 'b': text}."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\s{4}\S)", "\n" + "\n".join(paragraphs)):
        names, colon, text = entry.strip().partition(": ")
        if colon:
            found |= {name: _join(text) for name in names.split(", ")}
    return found


def _join(text: str) -> str:
    return " ".join(text.split())
