"""``python -m fastdetr_mmdet.export``, and the page that tells how to use its files."""

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


@pytest.fixture(scope="module")
def stretched(tiny_run, tmp_path_factory):
    """A two-stage detector with deformable attention, fixed to one image of 64 x 64."""
    path = tmp_path_factory.mktemp("export") / "detector.onnx"
    arguments = [str(tiny_run.config), str(tiny_run.checkpoint), str(path), "--benchmark"]
    option = "test_dataloader.dataset.pipeline.1.keep_ratio=False"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "measure_speed", partial(comparison.measure_speed, rounds=1))
        assert command.main([*arguments, "--cfg-options", option]) == 0
    return path


def test_file_is_fixed_to_the_test_scale(stretched):
    (images,) = onnxruntime.InferenceSession(stretched).get_inputs()
    assert images.shape == [1, 3, 64, 64]


def test_example_of_the_page(stretched, tiny_run):
    """Run as it stands; it finds what mmdet finds. On padded images: tests/test_deployment.py."""
    config = Config.fromfile(tiny_run.config)
    config.test_dataloader.dataset.pipeline[1].keep_ratio = False
    detector = init_detector(config, str(tiny_run.checkpoint), device="cpu")
    for picture in val_images(tiny_run.data_root):
        names = run_example(stretched, picture)
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
    assert "Exporting needs not_installed_here, which is not installed" in message
    assert "pip install 'fastdetr_mmdet[export]'" in message
    assert not out.exists()


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_sources_are_not_overwritten(tiny_run, tmp_path, which, linked, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load_detector", None)  # not even read
    sources = [shutil.copy(path, tmp_path) for path in (tiny_run.config, tiny_run.checkpoint)]
    out = Path(sources[which])
    before = out.read_bytes()
    if linked:
        out = tmp_path / "detector.onnx"
        out.symlink_to(sources[which])
    assert command.main([*map(str, sources), str(out)]) == 2
    assert str(out) in capsys.readouterr().err
    assert Path(sources[which]).read_bytes() == before
