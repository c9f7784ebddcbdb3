"""No checkpoint file can run code, on any way of loading."""

import io
import os
import pickle
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import checkpoint as loaders
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from support.runs import BIN, ROOT, make_runner, own_visualizer, run_tool

from fastdetr_mmdet.checkpoints import safe_loading
from fastdetr_mmdet.checkpoints.embedded_config import EmbeddedConfigError, check_config
from fastdetr_mmdet.checkpoints.safe_loading import CheckpointRefusedError


class Call:
    """Unpickles to the result of a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture
def trace(tmp_path):
    """The payloads' file, which must not exist after a test."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists(), "the payload was run"


def saved(content, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def old_tar(content) -> bytes:
    """The format of torch 0.1."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(content if name == "pickle" else 0, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


FORMATS = {
    "torch.save": saved,
    "torch.save before 1.6": lambda x: saved(x, _use_new_zipfile_serialization=False),
    "torch 0.1": old_tar,
    "pickle 2": lambda x: pickle.dumps(x, protocol=2),
    "pickle 5": lambda x: pickle.dumps(x, protocol=5),
}
PAYLOADS = {
    "os.system": lambda path: Call(os.system, f"touch {path}"),
    "exec": lambda path: Call(exec, f"open({str(path)!r}, 'w')"),
    "open": lambda path: Call(open, str(path), "w"),
    "subprocess": lambda path: Call(subprocess.Popen, ["touch", str(path)]),
    "import": lambda path: Call(__import__, "evil_module"),
}


def hostile(path, payload=PAYLOADS["os.system"], write=saved, where="state_dict", trace=None):
    """Write a file that calls a function when unpickled."""
    content = {"meta": {"epoch": 1, "iter": 1}, "state_dict": {"w": torch.ones(2)}}
    content[where] = payload(trace)
    path.write_bytes(write(content))
    return path


def refused(path):
    return pytest.raises(CheckpointRefusedError, match=path.name)


# --------------------------------------------------------------------------------------------------
# Every kind of file


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_formats_and_payloads(tmp_path, trace, payload, write):
    path = hostile(tmp_path / "weights.pth", payload, write, trace=trace)
    with refused(path):
        load_checkpoint(torch.nn.Linear(2, 2), str(path), map_location="cpu")


@pytest.mark.parametrize("where", ["meta", "optimizer", "message_hub", "anything"])
def test_anywhere_in_the_file(tmp_path, trace, where):
    path = hostile(tmp_path / "weights.pth", where=where, trace=trace)
    with pytest.raises(CheckpointRefusedError, match=rf"{os.system.__module__}\.system") as error:
        load_checkpoint(torch.nn.Linear(2, 2), str(path))
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("owner", "name"),
    [(HistoryBuffer, "__init__"), (HistoryBuffer, "_statistics_methods"), (torch.Tensor, "cpu")],
)
def test_attributes_of_allowed_classes(tmp_path, owner, name):
    """mmengine's files call getattr; the stand-in returns only what they need."""
    path = tmp_path / "weights.pth"
    path.write_bytes(saved({"state_dict": Call(getattr, owner, name)}))
    for _ in range(3):  # onedl-mmengine allows the real one, in random order
        with pytest.raises(CheckpointRefusedError, match=f"'{name}'"):
            load_checkpoint(torch.nn.Linear(2, 2), str(path))


# --------------------------------------------------------------------------------------------------
# Every way of loading


def pretrained(config, path, **more):
    model = Config.fromfile(config).model
    model.backbone.init_cfg = dict(type="Pretrained", checkpoint=path, **more)
    MODELS.build(model).init_weights()


WAYS = {
    "init_detector": lambda config, path: init_detector(config, path, device="cpu"),
    "inferencer": lambda config, path: DetInferencer(config, path, device="cpu"),
    "inferencer alone": lambda config, path: DetInferencer(weights=path, device="cpu"),
    "pretrained": pretrained,
    "pretrained part": lambda config, path: pretrained(config, path, prefix="backbone."),
}


@pytest.mark.smoke
@pytest.mark.parametrize("load", WAYS.values(), ids=WAYS)
def test_ways_in(load, tiny_config_file, tmp_path, trace):
    path = hostile(tmp_path / "weights.pth", trace=trace)
    with refused(path):
        load(str(tiny_config_file), str(path))


@pytest.mark.smoke
@pytest.mark.parametrize("resume", [pytest.param(False, marks=pytest.mark.slow), True])
def test_load_from_and_resume(tiny_config_file, shapes, tmp_path, trace, resume):
    path = hostile(tmp_path / "weights.pth", trace=trace)
    runner = make_runner(
        tiny_config_file, tmp_path / "work", shapes, load_from=str(path), resume=resume
    )
    with refused(path):
        runner.train()


@pytest.mark.slow
def test_automatic_resume(tiny_config_file, shapes, tmp_path, trace, monkeypatch):
    """From a work directory that others can write to."""
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    path = hostile(work_dir / "epoch_1.pth", trace=trace)
    (work_dir / "last_checkpoint").write_text(str(path))
    options = ["--cfg-options", f"data_root={shapes}/", own_visualizer()]
    with refused(path):
        run_tool(
            monkeypatch, "train.py", tiny_config_file, "--work-dir", work_dir, "--resume", *options
        )


@pytest.mark.slow
def test_flexible_runner(tiny_config_file, shapes, tmp_path, trace):
    path = hostile(tmp_path / "weights.pth", trace=trace)
    from mmengine.registry import RUNNERS

    cfg = Config.fromfile(tiny_config_file)
    cfg.merge_from_dict({"data_root": f"{shapes}/", "visualizer.name": "flexible", "resume": True})
    cfg.merge_from_dict(dict(work_dir=str(tmp_path), runner_type="FlexibleRunner"))
    cfg.load_from = str(path)
    with refused(path):
        RUNNERS.build(cfg).train()


@pytest.mark.parametrize("scheme", ["torchvision://", "mmcls://", "openmmlab://", ""])
def test_weights_from_an_address(scheme, tmp_path, trace, monkeypatch):
    """torch's URL loader needs weights_only=True, which neither mmengine passes.

    mmengine has tables with URLs of named models.
    """
    cache = tmp_path / "hub/checkpoints"
    cache.mkdir(parents=True)
    hostile(cache / "resnet.pth", trace=trace)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = "https://example.org/resnet.pth"
    for table in ("get_torchvision_models", "get_mmcls_models", "get_external_models"):
        monkeypatch.setattr(loaders, table, lambda: {"resnet": url})
    with pytest.raises(CheckpointRefusedError, match=url):
        load_checkpoint(torch.nn.Linear(2, 2), f"{scheme}resnet" if scheme else url)


def test_another_scheme(tmp_path):
    """Loaders that users register are not changed."""
    path = tmp_path / "own.pth"
    path.write_bytes(saved({"state_dict": subprocess.Popen}))

    @CheckpointLoader.register_scheme(prefixes="own://", force=True)
    def load_from_own(filename, map_location=None):
        return torch.load(filename.removeprefix("own://"), weights_only=False)

    try:
        content = CheckpointLoader.load_checkpoint(f"own://{path}")
    finally:
        del CheckpointLoader._schemes["own://"]
    assert content["state_dict"] is subprocess.Popen


def test_many_threads(tmp_path):
    """The guard holds while other threads load; users' own loads work meanwhile."""
    path = tmp_path / "weights.pth"
    path.write_bytes(saved({"state_dict": subprocess.Popen}))
    inside, may_go = threading.Barrier(2, timeout=60), threading.Event()

    def slow(file, **kwargs):
        inside.wait()
        may_go.wait(60)
        return torch.load(file, **kwargs)

    def first():
        with pytest.raises(CheckpointRefusedError):
            safe_loading.load_plain(str(path), slow)

    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(first)
        inside.wait()  # while the first thread is in the middle of it ...
        assert torch.load(path, weights_only=False)["state_dict"] is subprocess.Popen
        with pytest.raises(CheckpointRefusedError):
            load_checkpoint(torch.nn.Linear(2, 2), str(path))
        may_go.set()  # ... and when the second has come and gone
        loading.result(60)


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
def test_torch_s_variable_does_not_open_the_guard(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(saved({"state_dict": subprocess.Popen}))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert torch.load(path)["state_dict"] is subprocess.Popen
    with pytest.raises(CheckpointRefusedError):
        load_checkpoint(torch.nn.Linear(2, 2), str(path))


def test_mmdets_test(tiny_config_file, shapes, tmp_path, trace, monkeypatch):
    path = hostile(tmp_path / "weights.pth", trace=trace)
    options = ["--cfg-options", f"data_root={shapes}/", own_visualizer()]
    with refused(path):
        run_tool(monkeypatch, "test.py", tiny_config_file, path, "--work-dir", tmp_path, *options)


@pytest.mark.slow
def test_mim_test(tiny_config_file, shapes, tmp_path, trace):
    """In a process where only mim's copy of tools/test.py and the config import the package."""
    path = hostile(tmp_path / "weights.pth", trace=trace)
    options = ["-C", path, "--work-dir", tmp_path, "--cfg-options", f"data_root={shapes}/"]
    result = subprocess.run(
        [BIN / "mim", "test", "fastdetr_mmdet", tiny_config_file, *options],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode != 0
    assert f"{path} was refused: reading it would run" in result.stderr


# --------------------------------------------------------------------------------------------------
# Unchanged behaviour


@pytest.mark.parametrize("write", list(FORMATS.values())[:2], ids=list(FORMATS)[:2])
def test_good_files_load(write, tmp_path):
    """With the history and numpy numbers of mmengine's runner."""
    model, other, hub = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), MessageHub("good files")
    for step in range(5):
        hub.update_scalar("train/loss", np.float32(step) / 2)
        hub.update_info("iter", np.int64(step))
    hub.update_info("epoch", np.array([1, 2]))
    content = dict(state_dict=model.state_dict(), meta=dict(epoch=3), message_hub=hub.state_dict())
    path = tmp_path / "weights.pth"
    path.write_bytes(write(content))
    # onedl-mmengine's loader adds these for a load, then removes them for the process
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray, np.dtype, getattr]):
        pass
    loaded = load_checkpoint(other, str(path), strict=True)
    torch.testing.assert_close(other.weight, model.weight, rtol=0, atol=0)
    assert loaded["meta"] == {"epoch": 3}
    buffer = loaded["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(buffer, HistoryBuffer) and buffer.mean() == 1
    assert loaded["message_hub"]["runtime_info"]["iter"] == 4


def test_other_errors_come_through(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth can not be found"):
        load_checkpoint(torch.nn.Linear(2, 2), str(tmp_path / "none.pth"))


def test_old_torch_is_told_of(tmp_path, monkeypatch):
    """Before 2.6 even weights_only=True could run code (CVE-2025-32434)."""
    path = tmp_path / "weights.pth"
    path.write_bytes(saved({"state_dict": torch.nn.Linear(2, 2).state_dict()}))
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    with pytest.warns(UserWarning, match=r"2\.5\.1.* 2\.6"):
        load_checkpoint(torch.nn.Linear(2, 2), str(path))


def test_no_door_of_mmengine_was_overlooked():
    """mmengine calls torch.load only in the two files that the guard covers."""
    root = os.path.dirname(sys.modules["mmengine"].__file__)
    found = set()
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    if "torch.load(" in file.read():
                        found.add(os.path.relpath(os.path.join(folder, name), root))
    assert found == {"runner/checkpoint.py", "utils/dl_utils/hub.py"}
    assert loaders.load_checkpoint is load_checkpoint


# --------------------------------------------------------------------------------------------------
# The config that a checkpoint holds


def with_config(path, text, model=None):
    """A checkpoint in the runner's form with a given config."""
    meta = dict(cfg=text, config=text, epoch=1, iter=1)
    state = {} if model is None else model.state_dict()
    torch.save({"meta": meta, "state_dict": state, "message_hub": {}}, path)
    return path


HOSTILE_CONFIGS = {
    "call with keywords": "x = open(file='{path}', mode='w')\n",
    "import": "import os\nos.system('touch {path}')\n",
    "call": "model = dict(type='FastDETR', x=open('{path}', 'w'))\n",
    "expression": "open('{path}', 'w')\n",
    "comprehension": "model = [open(p, 'w') for p in ['{path}']]\n",
    "key": "model = {{open('{path}', 'w'): 1}}\n",
    "unpacked": "model = dict(**open('{path}', 'w'))\n",
    "format": 'model = f\'{{open("{path}", "w")}}\'\n',
    "function": "def f(x=open('{path}', 'w')): pass\n",
    "attribute": "model = dict().fromkeys([open('{path}', 'w')])\n",
    "base": "_base_ = '{folder}/evil_config.py'\n",
    "custom_imports": "custom_imports = dict(imports=['evil_module'])\nmodel = dict(type='A')\n",
    "one import": "custom_imports = dict(imports='evil_module')\nmodel = dict(type='A')\n",
    "scope": "default_scope = 'evil_module'\nmodel = dict(type='A')\n",
    "type": "model = dict(type='os.system', command='touch {path}')\n",
    "part's type": "model = dict(type='FastDETR', neck=[dict(type='os.mkdir', path='{path}')])",
    "type in our scope": "model = dict(type='mmengine.load', file='{folder}/evil.pkl')\n",
    "deep type": "model = dict(type='mmengine.dist.utils.subprocess.Popen', args=['touch'])\n",
    "module": "model = dict(type='evil_module')\n",
    "no type": "model = dict(type=['os.system'])\n",
    "no Python": "model = (\n",
    # mmengine inserts it before running the text
    "variable": "a = 1\n# {{{{$NOT_SET:A|\\nopen('{path}','w')#}}}}\n",
    "base variable": "a = ['''{{{{_base_.b}}}}''', ', open(\"{path}\", \"w\")#'\n]\n",
}


@pytest.fixture
def lures(tmp_path, trace, monkeypatch):
    """Files that a config could run."""
    code = f"open({str(trace)!r}, 'w')\n"
    (tmp_path / "evil_config.py").write_text(code)
    (tmp_path / "evil_module.py").write_text(code)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Call(open, str(trace), "w")))
    monkeypatch.syspath_prepend(tmp_path)
    return dict(path=trace, folder=tmp_path)


@pytest.mark.parametrize("text", HOSTILE_CONFIGS.values(), ids=HOSTILE_CONFIGS)
def test_config_of_a_checkpoint(tmp_path, lures, text):
    path = with_config(tmp_path / "weights.pth", text.format(**lures))
    with pytest.raises(EmbeddedConfigError):
        DetInferencer(weights=str(path), device="cpu")


@pytest.mark.smoke
def test_config_that_resume_runs(tiny_config_file, shapes, tmp_path, lures):
    text = HOSTILE_CONFIGS["import"].format(**lures)
    cfg = Config.fromfile(tiny_config_file)
    path = with_config(tmp_path / "weights.pth", text, MODELS.build(cfg.model))
    options = dict(load_from=str(path), resume=True)
    runner = make_runner(tiny_config_file, tmp_path / "work", shapes, **options)
    with pytest.raises(EmbeddedConfigError, match="line 1"):
        runner.train()


def test_config_that_is_not_run_is_no_obstacle(tmp_path, lures):
    """load_from works for checkpoints that hold another project's config file."""
    text, model = HOSTILE_CONFIGS["import"].format(**lures), torch.nn.Linear(2, 2)
    load_checkpoint(model, str(with_config(tmp_path / "weights.pth", text, model)), strict=True)


@pytest.mark.smoke
def test_own_configs_are_accepted(tiny_config_file):
    check_config(Config.fromfile(tiny_config_file).pretty_text)


def test_plain_values():
    check_config(
        "a = dict(b=[1, -2.5, None, True], c=('x', {'d.e': 1, 2: {3}}))\nd = dict({'f': 1})"
    )


def test_own_parts_are_accepted_once_they_are_imported(monkeypatch):
    text = "custom_imports = dict(imports=['my_parts'])\nmodel = dict(type='MyPart')\n"
    with pytest.raises(EmbeddedConfigError, match="my_parts"):
        check_config(text)
    monkeypatch.setitem(sys.modules, "my_parts", ModuleType("my_parts"))
    text = text.replace("MyPart", "my_parts.MyPart")
    with pytest.raises(EmbeddedConfigError, match=r"'my_parts\.MyPart'"):
        check_config(text)
    HOOKS.register_module(name="MyPart", module=type("MyPart", (), {}), force=True)
    try:
        check_config(text)
    finally:
        del HOOKS._module_dict["MyPart"]


def test_own_strings_are_the_users_business(trace):
    assert Config.fromstring("import os\na = os.sep\n", ".py").a == os.sep
