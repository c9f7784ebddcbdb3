"""Simulate a CUDA device without computing, for a torch without CUDA.

Device tensors are torch's fake tensors (shape, type, device); CPU tensors are real. Whole training
steps run on it, including backward and optimizer. Wrong devices or types raise, as on a GPU. Reads
of values by the host are recorded; the values are invented unless they follow from small host
tensors.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from mmcv import _ext
from mmcv.ops import multi_scale_deform_attn
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import optimizer
from torch.utils import _foreach_utils, cpp_extension
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
_FOUND = 7  # assumed number of True entries in a mask of unknown values
_SMALL = 1024  # maximum size of tensors whose values are tracked
_MASKABLE = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
)
# mmcv's kernels; all arguments of a call have the same type
_MMCV = [
    f"{name}_{way}"
    for name in ("ms_deform_attn", "sigmoid_focal_loss", "roi_align")
    for way in ("forward", "backward")
]


def install() -> None:
    """Register the device in torch, irreversibly; use a separate process.

    Call it before the first backward, when torch starts a thread per device.

    Raises:
        RuntimeError: if there is no C++ compiler.
    """
    source = Path(__file__).with_suffix(".cpp")
    key = hashlib.sha256(source.read_bytes() + torch.__version__.encode()).hexdigest()[:12]
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    library = Path(root, f"fastdetr_fake_cuda_{key}.so")
    if not library.exists():  # other processes may build it at the same time
        library.parent.mkdir(parents=True, exist_ok=True)
        own = f"{library}.{os.getpid()}"
        command = ["c++", "-std=c++17", "-shared", "-fPIC", str(source), "-o", own]
        command += [f"-I{path}" for path in cpp_extension.include_paths()]
        command += [f"-L{path}" for path in cpp_extension.library_paths()]
        command += ["-lc10", "-ltorch_cpu"]
        command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise RuntimeError("The fake CUDA device needs a C++ compiler; install g++.") from None
        os.replace(own, library)
    torch.ops.load_library(library)


class FakeCuda(TorchDispatchMode):
    """Context in which the device exists.

    ``operators``: number of calls of each operator on the device, without views and empty tensors,
    which launch nothing; attention counts as one kernel, as on a GPU. ``reads``: places (file and
    function) where the host waited for a device value. ``waits``: places where it waited for a copy
    to the device. ``moved``: bytes of the operators' inputs and outputs. ``held`` and ``peak``:
    bytes of live tensors now and at the peak, without allocator rounding and kernel workspaces.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.operators: Counter[str] = Counter()
        self.reads: list[str] = []
        self.waits: list[str] = []
        self.moved = self.held = self.peak = 0
        self._alive: set[int] = set()

    def __enter__(self) -> FakeCuda:
        self._patches = ExitStack()
        for owner, name, new in (
            (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True),
            (torch.cuda, "_lazy_init", lambda: None),
            (F, "scaled_dot_product_attention", _attention),
            (multi_scale_deform_attn, "IS_CUDA_AVAILABLE", True),
            (optimizer, "_foreach_supported_types", [FakeTensor]),
            (_foreach_utils, "_foreach_supported_types", [FakeTensor]),
            *((_ext, name, self._kernel(name)) for name in _MMCV),
        ):
            self._patches.enter_context(patch.object(owner, name, new))
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        torch._C._set_only_lift_cpu_tensors(False)
        self._patches.close()

    def clear(self) -> None:
        """Reset the counts, not the live tensors."""
        self.operators.clear()
        self.reads.clear()
        self.waits.clear()
        self.moved, self.peak = 0, self.held

    def put(self, x: Tensor) -> Tensor:
        """Move a tensor to the device."""
        moved = FakeTensor(self.mode, x.detach().to("meta"), CUDA)
        self._hold(moved)
        return moved

    def put_module(self, module: nn.Module) -> nn.Module:
        """Move a module's parameters and buffers to the device."""
        for part in module.modules():
            for name, x in part._parameters.items():
                if x is not None:
                    part._parameters[name] = nn.Parameter(self.put(x), x.requires_grad)
            for name, x in part._buffers.items():
                part._buffers[name] = None if x is None else self.put(x)
        return module

    def put_objects(self, objects: InstanceData) -> InstanceData:
        """Move ground truth to the device, with tracked values."""
        moved = InstanceData(**{name: self.put(x) for name, x in objects.items()})
        for name, x in moved.items():
            x.known = objects[name]
        return moved

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        on_cuda = any(isinstance(x, FakeTensor) for x in tree_leaves((args, kwargs)))
        target = kwargs.get("device") and torch.device(kwargs["device"]).type
        if not on_cuda and target != "cuda":
            return func(*args, **kwargs)
        if target == "cpu" or (func is aten.copy_.default and not isinstance(args[0], FakeTensor)):
            self.reads.append(_place())
            source = args[0] if target else args[1]
            dtype = kwargs.get("dtype") or args[0].dtype
            values = (
                torch.ones(source.shape, dtype=dtype)
                if _value(source) is None
                else _value(source).to(dtype)
            )
            return values if target else args[0].copy_(values)
        if func is aten._local_scalar_dense.default:
            self.reads.append(_place())
            known = _value(args[0])
            return args[0].dtype == torch.bool if known is None else known.item()
        if func is aten._unique2.default:
            self.reads.append(_place())
            self._called(func.name(), args)
            return args[0], args[0][:0].long(), args[0][:0].long()
        if func is aten.nonzero.default:
            self.reads.append(_place())
            func, kwargs = aten.new_zeros.default, dict(dtype=torch.long)
            args = args[0], (_FOUND, args[0].dim())
        if func in _MASKABLE:
            args = (args[0], self._without_masks(args[1]), *args[2:])
        if func is aten._to_copy.default and not isinstance(args[0], FakeTensor):
            self.waits += [] if kwargs.get("non_blocking") else [_place()]
        known = _followed(func, args, kwargs)
        with self.mode:
            result = func(*tree_map_only(Tensor, self._seen, args), **kwargs)
        for got, value in zip(tree_leaves(result), known, strict=False):
            got.known = value
        self._hold(result)
        if not _launches_nothing(func):
            self._called(func.name(), (args, kwargs, result))
        return result

    def _called(self, name: str, tensors: Any) -> None:
        self.operators[name] += 1
        self.moved += sum(
            min(x.numel() * x.element_size(), x.untyped_storage().nbytes())  # less if expanded
            for x in tree_leaves(tensors)
            if isinstance(x, FakeTensor)
        )

    def _hold(self, result: Any) -> None:
        for x in tree_leaves(result):
            if isinstance(x, FakeTensor) and x.device.type == "cuda":
                storage = x.untyped_storage()
                if storage._cdata not in self._alive:
                    self._alive.add(storage._cdata)
                    self.held += storage.nbytes()
                    self.peak = max(self.peak, self.held)
                    weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, storage: int, size: int) -> None:
        self._alive.discard(storage)
        self.held -= size

    def _seen(self, x: Tensor) -> Tensor:
        """Convert a real tensor for device operators."""
        return x if isinstance(x, FakeTensor) else FakeTensor(self.mode, x.to("meta"), x.device)

    def _without_masks(self, index: list[Tensor | None]) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for x in index:
            masks = x is not None and x.dtype in (torch.bool, torch.uint8)
            self.reads += [_place()] * masks
            found += [x.new_zeros(_FOUND, dtype=torch.long)] * x.dim() if masks else [x]
        return found

    def _kernel(self, name: str) -> Callable[..., Tensor | None]:
        def kernel(*args: Tensor, **options: Any) -> Tensor | None:
            types = {x.dtype for x in args if x.is_floating_point()}
            if len(types) > 1:
                raise TypeError(f"{name} got tensors of {types}, but it expects one type.")
            result = None
            if name == "ms_deform_attn_forward":
                value, _, _, locations, _ = args
                result = value.new_empty(*locations.shape[:2], value.shape[2:].numel())
            self._called(f"mmcv::{name}", (args, result))
            return result

        return kernel


def _followed(func: Any, args: tuple, kwargs: dict) -> list[Any]:
    """Results of an operator on small tensors with known values; else nothing."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    known = [_value(x) is not None and x.numel() <= _SMALL for x in tensors]
    if func._schema.is_mutable or func.namespace == "prim" or not tensors or not all(known):
        return []
    args, kwargs = tree_map_only(Tensor, _value, (args, kwargs))
    return tree_leaves(
        func(*args, **(kwargs | {"device": "cpu"} if "device" in kwargs else kwargs))
    )


def _value(x: Tensor) -> Tensor | None:
    return getattr(x, "known", None) if isinstance(x, FakeTensor) else x


def _launches_nothing(func: Any) -> bool:
    returns = func._schema.returns
    view = returns and all(r.alias_info and not r.alias_info.is_write for r in returns)
    return bool(view) or any(x in func.name() for x in ("empty", "_unsafe_view", "prim::"))


def _place() -> str:
    """The innermost function of a measured package."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        for package in ("fastdetr_mmdet", "mmdet", "mmcv", "torch/amp"):
            if f"/{package}/" in path:
                return f"{package}{path.rpartition(package)[2]}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Stand in for torch's memory-efficient attention on CUDA, which a CPU torch decomposes."""
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = (x.to(dtype) for x in (query, key, value))
    if len({query.dtype, key.dtype, value.dtype}) > 1:
        raise TypeError(f"attention got {query.dtype}, {key.dtype} and {value.dtype}.")
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.where(attn_mask.logical_not(), -torch.inf, 0.0)
        length = attn_mask.shape[-1]
        attn_mask = F.pad(attn_mask.to(query.dtype), (0, -length % 16))[..., :length]
        attn_mask = attn_mask.expand(*query.shape[:-1], length)
    grad = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    kernel = aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, attn_mask, grad, dropout_p)[0]
