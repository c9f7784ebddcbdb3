"""The shapes data set: what its scenes promise, placement rules, outlines and paint."""

import cv2
import numpy as np
import pytest

from fastdetr_mmdet.datasets import shapes_outlines, shapes_paint
from fastdetr_mmdet.datasets.shapes_outlines import CLASSES
from fastdetr_mmdet.datasets.shapes_scene import SPLITS, Item, Stage, compose


@pytest.fixture(scope="module")
def scenes() -> list:
    return [compose(0, "train", index) for index in range(200)]


@pytest.fixture(scope="module")
def objects(scenes) -> list:
    return [o for scene in scenes for o in scene.objects if not o.is_crowd]


# Content


def test_all_classes_and_sizes_occur_about_as_often_as_promised(objects):
    labels = np.bincount([o.label for o in objects], minlength=len(CLASSES))
    assert labels.min() > 0.6 * labels.mean()
    areas = np.array([o.mask.sum() for o in objects])
    small, large = (areas < 32**2).mean(), (areas > 96**2).mean()
    assert 0.12 < small < 0.28 and 0.10 < large < 0.28
    for label in range(len(CLASSES)):
        own = areas[[o.label == label for o in objects]]
        assert own.min() < 32**2 and own.max() > 96**2


def test_object_counts_empty_images_and_crowds(scenes):
    counts = [sum(not o.is_crowd for o in scene.objects) for scene in scenes]
    assert max(counts) <= 10 and 3.5 < np.mean(counts) < 5
    assert 0.01 < np.mean([not scene.objects for scene in scenes]) < 0.09
    crowds = [o for scene in scenes for o in scene.objects if o.is_crowd]
    assert 0.005 < len(crowds) / len(scenes) < 0.08
    assert all(o.mask.sum() >= 0.9 * o.full_area for o in crowds)


def test_image_sizes_and_formats_vary(scenes):
    sizes = np.array([scene.image.shape[:2] for scene in scenes])
    assert sizes.min() >= 160 and sizes.max() <= 320
    height, width = sizes.T
    assert (height > width).any() and (height < width).any() and (height == width).any()


def test_every_object_is_readable(scenes):
    hidden = 0
    for scene in scenes:
        claimed = np.zeros(scene.image.shape[:2], int)
        for item in scene.objects:
            claimed += item.mask
            if item.is_crowd:
                continue
            assert item.mask.sum() >= max(40, 0.45 * item.full_area)
            assert np.ptp(np.argwhere(item.mask), axis=0).min() >= 3
            hidden += item.mask.sum() < item.full_area
        assert claimed.max() <= 1
    assert hidden > 50  # occlusion does happen


def test_objects_stand_out_from_their_surroundings(scenes):
    differences = []
    for scene in scenes[:100]:
        for item in scene.objects:
            grown = cv2.dilate(item.mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
            inside, around = scene.image[item.mask], scene.image[grown & ~item.mask]
            differences.append(np.abs(inside.mean(axis=0) - around.mean(axis=0)).max())
    assert np.median(differences) > 45
    assert np.mean(np.array(differences) < 12) < 0.03


def test_colour_does_not_give_the_class_away(scenes):
    colours = {label: [] for label in range(len(CLASSES))}
    for scene in scenes:
        for item in scene.objects:
            colours[item.label].append(scene.image[item.mask].mean(axis=0))
    means = np.stack([np.mean(c, axis=0) for c in colours.values()])
    spread = np.mean([np.std(c, axis=0) for c in colours.values()])
    assert np.ptp(means, axis=0).max() < 0.75 * spread


# Placement


def stage_with_square(keep: float = 0.45) -> Stage:
    """100 x 100 image with one 40 x 40 item at (30, 30)."""
    stage = Stage(np.full((100, 100, 3), 90, np.uint8), np.random.default_rng(0))
    stage.owner[30:70, 30:70] = 1
    stage.items.append(Item(0, 40 * 40, keep, np.zeros((1, 3))))
    return stage


@pytest.mark.parametrize("hidden_rows, allowed", [(21, True), (22, True), (23, False)])
def test_no_object_hides_more_than_55_percent_of_another(hidden_rows, allowed):
    # 22 of 40 rows are 55 %.
    stage = stage_with_square()
    assert stage.fits(np.ones((hidden_rows, 40)), 30, 30, max_overlap=1.0) == allowed


def test_a_second_object_may_not_finish_what_a_first_began():
    stage = stage_with_square()
    stage.owner[30:45, 30:70] = 2
    stage.items.append(Item(1, 15 * 40, 0.45, np.zeros((1, 3))))
    assert not stage.fits(np.ones((10, 40)), 60, 30, max_overlap=1.0)
    assert stage.fits(np.ones((5, 40)), 65, 30, max_overlap=1.0)


def test_distractors_may_be_hidden_and_crowds_may_not():
    cover = np.ones((30, 40))
    assert stage_with_square(keep=0.0).fits(cover, 30, 30, max_overlap=1.0)
    assert not stage_with_square(keep=0.9).fits(cover[:5], 30, 30, max_overlap=1.0)


@pytest.mark.parametrize("left, allowed", [(-20, True), (-22, True), (-23, False), (83, False)])
def test_the_image_border_leaves_at_least_45_percent(left, allowed):
    stage = stage_with_square()
    assert stage.fits(np.ones((20, 40)), 5, left, max_overlap=1.0) == allowed


def test_tiny_rests_are_not_left_over():
    stage = stage_with_square()
    assert not stage.fits(np.ones((6, 6)), 0, 0, max_overlap=1.0)  # 36 pixels
    assert not stage.fits(np.ones((3, 30)), 0, 0, max_overlap=1.0)  # 3 pixels high
    assert stage.fits(np.ones((7, 7)), 0, 0, max_overlap=1.0)


def test_overlap_of_the_new_object_is_limited():
    stage = stage_with_square()
    assert not stage.fits(np.ones((20, 20)), 30, 20, max_overlap=0.4)  # half of it
    assert stage.fits(np.ones((20, 20)), 30, 18, max_overlap=0.4)  # 8 of 20 columns


def test_an_object_without_room_is_not_drawn():
    stage = stage_with_square(keep=0.9)
    stage.owner[:] = 1
    stage.items[0] = Item(0, 100 * 100, 1.0, np.zeros((1, 3)))
    before = stage.image.copy()
    stage.add(1, 30.0)
    assert len(stage.items) == 1
    assert np.array_equal(stage.image, before)


# Outlines and paint


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_side_is_the_root_of_the_area(label):
    rng = np.random.default_rng(label)
    outline = shapes_outlines.class_outline(label, rng)
    cover = shapes_outlines.rasterise(shapes_outlines.view(outline, 60, (300, 300), rng), rng)
    assert cover.sum() == pytest.approx(60**2, rel=0.03)
    assert cover[[0, -1]].max() == 0 and cover[:, [0, -1]].max() == 0
    assert ((cover > 0.1) & (cover < 0.9)).any()  # smooth edges
    middle = cover[tuple(np.array(cover.shape) // 2)]
    assert (middle == 0) == (CLASSES[label] == "ring")


def test_a_shape_is_made_smaller_to_fit():
    rng = np.random.default_rng(0)
    outline = shapes_outlines.class_outline(0, rng)
    seen = shapes_outlines.view(outline, 100, (50, 30), rng)
    width, height = np.ptp(seen[0], axis=0)
    assert width <= 50.001 and height <= 30.001


def test_chosen_colours_contrast_with_all_references():
    references = np.array([[20.0, 20, 20], [200, 180, 40]])
    for seed in range(20):
        colours = shapes_paint.contrasting_colours(np.random.default_rng(seed), references, 50)
        gaps = np.sqrt(((colours[:, None] - references) ** 2) @ shapes_paint._EYE)
        assert gaps.min() >= 50


def test_splits_are_those_of_the_files():
    assert SPLITS == ("train", "val")
    with pytest.raises(ValueError):
        compose(0, "test", 0)
