"""Maps, points and boxes have the right place in the original image, padded or resized."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import init_detector
from support.mixes import MIXES, mix
from support.models import NUM_CLASSES, NUM_HEADS, make_batch
from support.tolerances import assert_near
from torch import nn

from fastdetr_mmdet.models.cross_attention import Explanation
from fastdetr_mmdet.visualization import inspect_batch, inspect_image

SIZES = ((64, 96), (48, 64))  # sizes of the network's input; the second image is padded
SCALE = (0.5, 0.25)  # (w, h) of the input over the original
ORIGINALS = [np.zeros((256, 192, 3), np.uint8), np.zeros((192, 128, 3), np.uint8)]
CELL, QUERY = (1, 0), 3  # row and column of the second image's 2 x 2 cells at stride 32


def spotlight(queries, memory, spatial_prior=None):
    """An explanation: one cell of each image, and points in corners of the un-padded image."""
    bs, num_queries, _ = queries.content.shape
    h, w = memory.spatial_shapes[0]
    weights = torch.zeros(bs, NUM_HEADS, num_queries, h, w)
    weights[..., CELL[0], CELL[1]] = 1
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.25]])
    points = corners * memory.valid_ratios[:, None, None, :, None]
    points = points.expand(bs, num_queries, NUM_HEADS, 1, 3, 2)
    shares = torch.full(points.shape[:-1], 1 / 3)
    return Explanation(weights=weights.flatten(3), points=points, point_weights=shares)


def batch():
    inputs, samples = make_batch(SIZES, scale_factor=SCALE)
    cropped = [x[:, :h, :w] for x, (h, w) in zip(inputs, SIZES, strict=True)]
    pixels = [(x * 40 + 120).clamp(0, 255).byte() for x in cropped]
    return dict(inputs=pixels, data_samples=samples)


def inspected(name, data=None, **kwargs):
    model = mix(name) if isinstance(name, str) else name
    return inspect_batch(model, data or batch(), ORIGINALS, **kwargs)


def test_hand_made_attention_lands_on_its_pixels():
    model = mix("plain")
    for layer in model.transformer.decoder.layers:
        layer.cross_attn.explain = spotlight
    for image, (h, w) in zip(inspected(model, queries=[QUERY]), ((2, 3), (2, 2)), strict=True):
        height, width = image.image.shape[:2]
        for layer in image.queries[0].layers:
            (maps,) = layer.weights
            assert maps.shape == (NUM_HEADS, h, w)  # of 2 x 3 cells with padding
            assert (maps[:, CELL[0], CELL[1]] == 1).all() and maps.sum() == NUM_HEADS
            # corners of the original image, also for the padded second image
            expected = np.array([[0, 0], [width, height], [width / 2, height / 4]])
            assert np.abs(layer.points[:, 0] - expected).max() < 1e-3


def test_points_are_where_the_reference_is():
    """Deformable attention without offsets samples at the reference."""
    model = mix("deformable")
    for layer in model.transformer.decoder.layers:
        nn.init.zeros_(layer.cross_attn.sampling_offsets.weight)
        nn.init.zeros_(layer.cross_attn.sampling_offsets.bias)
    inputs, samples = make_batch(SIZES)
    with torch.no_grad():
        memory = model.make_memory(model.extract_feat(inputs), inputs, samples)
        queries, _ = model.transformer.queries(memory, None)
    for image in inspected(model, queries=[QUERY]):
        size = np.array(image.image.shape[1::-1])
        expected = queries.reference[0, QUERY].numpy() * size
        layer = image.queries[0].layers[0]
        assert np.abs(layer.reference - expected).max() < 1e-3
        assert np.abs(layer.points - expected).max() < 1e-2
        assert layer.point_weights.sum((1, 2)) == pytest.approx(np.ones(NUM_HEADS))


@torch.no_grad()
def test_salient_points_lie_in_their_region():
    model = mix("smca with aligner")
    queries = [query for image in inspected(model) for query in image.queries]
    for layer in (layer for query in queries for layer in query.layers):
        low, high = layer.reference.reshape(2, 2)
        assert layer.salient_points.shape == (NUM_HEADS, 2)
        assert (layer.salient_points >= low - 1e-3).all()
        assert (layer.salient_points <= high + 1e-3).all()
        assert np.ptp(layer.salient_points, axis=0).min() > 0


def test_prior_peaks_at_its_centre():
    """Without offsets SMCA's Gaussian is centred at the reference."""
    model = mix("smca on three levels")
    for layer in model.transformer.decoder.layers:
        nn.init.zeros_(layer.spatial_prior.offset_branch.weight)
        nn.init.zeros_(layer.spatial_prior.offset_branch.bias)
    for image in inspected(model, top_k=10):
        size = image.image.shape[1::-1]
        for query in image.queries:
            layer = query.layers[0]
            assert layer.levels == (0, 1, 2)
            for level in range(3):
                logits, prior = layer.prior_logits[level], layer.prior[level]
                assert logits.shape == layer.weights[level].shape
                np.testing.assert_allclose(prior, np.exp(logits), rtol=1e-5)
                h, w = logits.shape[1:]
                cell = (layer.reference / size * (w, h)).astype(int).clip(0, (w - 1, h - 1))
                peak = np.unravel_index(logits[0].argmax(), (h, w))
                assert tuple(peak) == (cell[1], cell[0])


@pytest.mark.parametrize("name", MIXES)
def test_last_box_and_score_are_the_detection(name):
    """Also, maps of each head add up to 1 without padding."""
    model, data = mix(name), batch()
    found = inspected(model, data, top_k=4)
    processed = model.data_preprocessor(data, False)
    with torch.no_grad():
        results = model.predict(processed["inputs"], processed["data_samples"])
    for image, result in zip(found, results, strict=True):
        boxes, scores = result.pred_instances.bboxes, result.pred_instances.scores
        assert len(image.queries) == 4
        for query in image.queries:
            # rounding may swap detections with nearly equal scores
            alike = (scores - query.score).abs() < 1e-5
            near = boxes[alike & (result.pred_instances.labels == query.label)]
            assert (near - torch.from_numpy(query.box)).abs().amax(-1).min() < 1e-2
            assert {layer.scores.shape for layer in query.layers} == {(NUM_CLASSES,)}
            assert query.layers[-1].scores.max() == pytest.approx(query.score)
            for layer in query.layers:
                if layer.weights is not None:
                    total = sum(maps.sum((1, 2)) for maps in layer.weights)
                    assert_near(torch.from_numpy(total), torch.ones(NUM_HEADS))
                    assert sum(m.sum() for m in layer.attention) == pytest.approx(1, abs=1e-4)
        best = [query.score for query in image.queries]
        assert best == sorted(best, reverse=True)
        assert best[0] == pytest.approx(float(scores[0]))


def test_level_schedule_is_told():
    found = inspected("sam, one level per layer", top_k=1)
    layers = found[0].queries[0].layers
    assert [layer.levels for layer in layers] == [(2,), (0,)]
    assert [layer.weights[0].shape[1:] for layer in layers] == [(2, 3), (8, 12)]


@pytest.mark.parametrize("training", [True, False])
def test_queries_keep_their_order_and_the_model_its_mode(training):
    model = mix("plain").train(training)
    queries = inspected(model, queries=[7, 2])[0].queries
    assert [query.query for query in queries] == [7, 2] and model.training == training


def test_other_images_of_the_batch_do_not_matter():
    model, data = mix("smca on three levels"), batch()
    expected = inspected(model, data)[1].queries
    data["inputs"][0] = 255 - data["inputs"][0]
    for query, other in zip(inspected(model, data)[1].queries, expected, strict=True):
        assert query.query == other.query
        for maps, before in zip(query.layers[-1].weights, other.layers[-1].weights, strict=True):
            assert_near(torch.from_numpy(maps), torch.from_numpy(before))


@pytest.fixture(scope="module")
def shipped(tiny_config_file):
    """A detector from init_detector."""
    with pytest.warns(UserWarning, match="use COCO classes by default"):
        return init_detector(str(tiny_config_file), device="cpu")


def test_file_and_array_are_alike(shipped, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    from_file = inspect_image(shipped, tmp_path / "a.png", top_k=3)
    from_array = inspect_image(shipped, pixels, top_k=3)
    assert np.array_equal(from_file.image, pixels[..., ::-1])
    assert np.array_equal(from_array.image, pixels[..., ::-1])
    for a, b in zip(from_file.queries, from_array.queries, strict=True):
        assert (a.query, a.label) == (b.query, b.label)
        np.testing.assert_allclose(a.box, b.box, atol=1e-3)
        np.testing.assert_allclose(a.layers[0].points, b.layers[0].points, atol=1e-3)
    again = inspect_image(shipped, tmp_path / "a.png")  # the array did not change the config
    assert len(again.queries) == 5


def test_refusals(shipped, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    image = np.zeros((64, 64, 3), np.uint8)
    for source, options, error, word in (
        (tmp_path / "nothing.jpg", {}, FileNotFoundError, r"nothing\.jpg"),
        (tmp_path / "text.jpg", {}, ValueError, r"text\.jpg"),
        (np.zeros((8, 8)), {}, ValueError, r"\(8, 8\) and type float64"),
        (image, dict(queries=[10]), ValueError, "query 10; the model has 10"),
        (image, dict(queries=[-1]), ValueError, "query -1"),
        (image, dict(top_k=0), ValueError, "top_k=0"),
    ):
        with pytest.raises(error, match=word):
            inspect_image(shipped, source, **options)
    with pytest.raises(TypeError, match=r"FastDETR .*model\.cfg"):
        inspect_image(mix("plain"), image)
