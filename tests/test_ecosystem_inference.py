"""mmdet's inference interfaces, and what other libraries rely on."""

import re

import mmcv
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from support.runs import CLASSES, ROOT, VAL_IMAGES, val_images

CONFIGS = sorted(
    path
    for folder in ("conditional_detr", "custom", "demo")
    for path in (ROOT / "configs" / folder).glob("*.py")
)


@pytest.fixture
def detector(tiny_run):
    """A new one per test, because mmdet changes its config for arrays."""
    return init_detector(str(tiny_run.config), str(tiny_run.checkpoint), device="cpu")


def inferencer(**kwargs) -> DetInferencer:
    return DetInferencer(device="cpu", show_progress=False, **kwargs)


def arrays(predictions: list[dict]) -> list[np.ndarray]:
    return [np.array(p[key]) for p in predictions for key in ("bboxes", "scores", "labels")]


@pytest.mark.smoke
def test_init_detector(tiny_run, detector):
    assert tuple(detector.dataset_meta["classes"]) == CLASSES
    saved = torch.load(tiny_run.checkpoint, weights_only=True)["state_dict"]
    for name, tensor in detector.state_dict().items():
        torch.testing.assert_close(tensor, saved[name], rtol=0, atol=0, msg=name)


@pytest.mark.smoke
def test_inference_detector(tiny_run, detector):
    """With paths and arrays, one image and several of different sizes."""
    paths = val_images(tiny_run.data_root)
    results = inference_detector(detector, paths)
    assert len({mmcv.imread(path).shape for path in paths}) > 1
    assert len(results) == VAL_IMAGES
    for path, result in zip(paths, results, strict=True):
        found = result.pred_instances
        h, w = mmcv.imread(path).shape[:2]
        assert result.ori_shape == (h, w)
        assert (found.bboxes >= 0).all()
        # in pixels of the file, which is larger than the input of 64
        assert (found.bboxes <= torch.tensor([w, h, w, h]) + 1e-3).all()
        assert found.bboxes.max() > 64
    from_array = inference_detector(detector, mmcv.imread(paths[0])).pred_instances
    torch.testing.assert_close(from_array.bboxes, results[0].pred_instances.bboxes)


def test_data_samples_as_supervision_reads_them(tiny_run, detector):
    """supervision.Detections.from_mmdetection reads these three as numpy arrays."""
    found = inference_detector(detector, val_images(tiny_run.data_root)[0]).pred_instances
    assert len(found) == 60  # 10 queries x 6 classes, below max_per_img
    bboxes, scores = found.bboxes.cpu().numpy(), found.scores.cpu().numpy()
    labels = found.labels.cpu().numpy().astype(int)
    assert bboxes.shape == (60, 4) and bboxes.dtype == np.float32
    assert (bboxes[:, 2:] >= bboxes[:, :2]).all()  # x1, y1, x2, y2
    assert scores.shape == (60,) and scores.dtype == np.float32
    assert (scores[:-1] >= scores[1:]).all() and 0 <= scores.min() and scores.max() <= 1
    assert labels.shape == (60,) and found.labels.dtype == torch.int64
    assert set(labels) == set(range(len(CLASSES)))
    assert "masks" not in found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_pipelines_as_sahi_reads_them(path):
    """sahi's wrapper of DetInferencer looks for these names, and removes the first two."""
    pipeline = Config.fromfile(path).test_dataloader.dataset.pipeline
    names = [step["type"] for step in pipeline]
    assert names[:2] == ["LoadImageFromFile", "Resize"]
    assert names[-1] == "PackDetInputs"


@pytest.mark.smoke
def test_inferencer_agrees_with_inference_detector(tiny_run, detector):
    paths = val_images(tiny_run.data_root, range(3))
    expected = [inference_detector(detector, path).pred_instances for path in paths]
    infer = inferencer(model=str(tiny_run.config), weights=str(tiny_run.checkpoint))
    for inputs in (paths, [mmcv.imread(path) for path in paths]):
        for prediction, found in zip(infer(inputs)["predictions"], expected, strict=True):
            np.testing.assert_allclose(prediction["bboxes"], found.bboxes, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(prediction["scores"], found.scores, rtol=1e-4)
            assert prediction["labels"] == found.labels.tolist()
    # in one batch, without padding
    for prediction in infer(paths[:1] * 3, batch_size=3)["predictions"]:
        np.testing.assert_allclose(prediction["scores"], expected[0].scores, rtol=1e-3, atol=1e-4)
    assert len(infer(paths, batch_size=3)["predictions"]) == 3


@pytest.mark.smoke
def test_batches_of_different_sizes_give_what_single_images_give(tiny_run, tmp_path):
    """With separate_sizes, which batches images of equal size without padding."""
    paths = val_images(tiny_run.data_root, range(4))
    images = [mmcv.imread(path) for path in paths]
    images.append(mmcv.imresize(images[0], (images[0].shape[1] // 2, images[0].shape[0])))
    assert len({image.shape for image in images}) > 1
    config = Config.fromfile(tiny_run.config)
    config.model.test_cfg.separate_sizes = True
    config.dump(tmp_path / "separate.py")
    infer = inferencer(model=str(tmp_path / "separate.py"), weights=str(tiny_run.checkpoint))
    alone = infer(images, batch_size=1)["predictions"]
    for batch_size in (2, 5):
        for actual, expected in zip(
            arrays(infer(images, batch_size=batch_size)["predictions"]), arrays(alone), strict=True
        ):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-2)  # pixels
    padded = inferencer(model=str(tiny_run.config), weights=str(tiny_run.checkpoint))
    together = padded(images, batch_size=5)["predictions"]
    worst = max(np.abs(a - b).max() for a, b in zip(arrays(together), arrays(alone), strict=True))
    assert worst > 1e-2  # padding matters, so the option is needed


def test_inferencer_as_sahi_reads_it(tiny_run):
    """sahi's MmdetDetectionModel reads class names, the dataset, and lists of numbers."""
    infer = inferencer(model=str(tiny_run.config), weights=str(tiny_run.checkpoint))
    assert tuple(infer.model.dataset_meta["classes"]) == CLASSES
    dataset = infer.cfg["train_dataloader"]["dataset"]
    while dataset["type"] == "RepeatDataset":
        dataset = dataset["dataset"]
    steps = dataset["pipeline"]
    assert not any("mask" in key and value is True for s in steps for key, value in s.items())
    (prediction,) = infer(mmcv.imread(val_images(tiny_run.data_root)[0]))["predictions"]
    assert set(prediction) == {"labels", "scores", "bboxes"}  # no masks
    assert all(type(label) is int for label in prediction["labels"])
    assert all(type(score) is float for score in prediction["scores"])
    assert all(len(box) == 4 and type(box) is list for box in prediction["bboxes"])


def test_inferencer_from_weights_alone(tiny_run):
    """The checkpoint carries the config."""
    path = val_images(tiny_run.data_root)[0]
    of_both = inferencer(model=str(tiny_run.config), weights=str(tiny_run.checkpoint))
    of_weights = inferencer(weights=str(tiny_run.checkpoint))
    pairs = zip(
        arrays(of_weights(path)["predictions"]), arrays(of_both(path)["predictions"]), strict=True
    )
    for actual, expected in pairs:
        np.testing.assert_array_equal(actual, expected)


def test_inferencer_of_a_pure_python_config(tiny_run, detector, tmp_path):
    """With the text copy that the runner writes, or with weights alone, as on the page."""
    names = "LoadImageFromFile", "LoadAnnotations", "Resize", "PackDetInputs"
    text = Config.fromfile(tiny_run.config).pretty_text
    text = re.sub(rf"type='({'|'.join(names)})'", r"type=\1", text)
    text = text.replace("type='fastdetr_mmdet.FastDETR'", "type=FastDETR")
    (tmp_path / "pure.py").write_text(
        "from mmcv.transforms import LoadImageFromFile\n"
        "from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize\n"
        f"from fastdetr_mmdet import FastDETR\n{text}"
    )
    config = Config.fromfile(tmp_path / "pure.py")
    assert config.test_dataloader.dataset.pipeline[1].type.__name__ == "Resize"
    config.dump(tmp_path / "copy.py")
    content = torch.load(tiny_run.checkpoint, weights_only=True)
    content["meta"]["cfg"] = config.pretty_text
    torch.save(content, tmp_path / "weights.pth")

    path = val_images(tiny_run.data_root)[0]
    expected = inference_detector(detector, path).pred_instances
    pure = init_detector(str(tmp_path / "pure.py"), str(tmp_path / "weights.pth"), device="cpu")
    torch.testing.assert_close(
        inference_detector(pure, path).pred_instances.scores, expected.scores
    )
    weights = str(tmp_path / "weights.pth")
    for infer in (
        inferencer(model=str(tmp_path / "copy.py"), weights=weights),
        inferencer(weights=weights),
    ):
        (found,) = infer(path)["predictions"]
        np.testing.assert_allclose(found["scores"], expected.scores, rtol=1e-4)
