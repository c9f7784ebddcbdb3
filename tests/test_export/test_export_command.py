"""``python -m fastdetr_mmdet export``, and the page on its files."""

import importlib.util
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from support.onnx_recipe import run_example
from support.runs import val_images

from fastdetr_mmdet.checkpoints import loading
from fastdetr_mmdet.export import __main__ as command
from fastdetr_mmdet.export import comparison, onnx_file

onnxruntime = pytest.importorskip("onnxruntime")


KEEP_RATIO = "test_dataloader.dataset.pipeline.1.keep_ratio"


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """A two-stage detector with deformable attention, fixed to one image of 64 x 64."""
    path = tmp_path_factory.mktemp("export") / "detector.onnx"
    arguments = [str(tiny_run.config), str(tiny_run.checkpoint), str(path), "--benchmark"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "measure_speed", partial(comparison.measure_speed, rounds=1))
        assert command.main(arguments) == 0
    return path


def test_file_is_fixed_to_the_test_scale(exported):
    images, sizes = onnxruntime.InferenceSession(exported).get_inputs()
    assert images.shape == [1, 3, 64, 64]
    assert (sizes.name, sizes.shape) == ("image_sizes", [1, 2])


@pytest.mark.parametrize("stretched", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_example_of_the_page(stretched, exported, tiny_run, tmp_path):
    """The page's code gives mmdet's detections, with padded and with stretched images."""
    config = Config.fromfile(tiny_run.config)
    if stretched:
        config.merge_from_dict({KEEP_RATIO: False})
        exported = tmp_path / "detector.onnx"
        arguments = [str(tiny_run.config), str(tiny_run.checkpoint), str(exported)]
        assert command.main([*arguments, "--cfg-options", f"{KEEP_RATIO}=False"]) == 0
    else:
        config.model.data_preprocessor.pad_size_divisor = 64
    detector = init_detector(config, str(tiny_run.checkpoint), device="cpu")
    for picture in val_images(tiny_run.data_root):
        names = run_example(exported, picture)
        found = inference_detector(detector, picture).pred_instances
        np.testing.assert_allclose(names["scores"], found.scores, atol=1e-4)
        np.testing.assert_allclose(names["boxes"], found.bboxes, atol=0.1)
        assert names["labels"].tolist() == found.labels.tolist()


def test_packages_are_named(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(onnx_file, "PACKAGES", ("onnx", "not_installed_here"))
    assert importlib.util.find_spec("not_installed_here") is None
    out = tmp_path / "detector.onnx"
    assert command.main([str(tiny_run.config), str(tiny_run.checkpoint), str(out)]) == 1
    message = capsys.readouterr().err
    assert "not_installed_here: not installed" in message
    assert "pip install onnx not_installed_here" in message
    assert not out.exists()


@pytest.mark.parametrize("which", [0, 1])
def test_sources_are_not_overwritten(which, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load_detector", None)  # not even read
    sources = [shutil.copy(path, tmp_path) for path in (tiny_run.config, tiny_run.checkpoint)]
    before = Path(sources[which]).read_bytes()
    out = tmp_path / "detector.onnx"
    out.symlink_to(sources[which])
    assert command.main([*map(str, sources), str(out)]) == 2
    assert str(out) in capsys.readouterr().err
    assert Path(sources[which]).read_bytes() == before
