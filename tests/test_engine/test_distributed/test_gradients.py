"""Two processes with one image each get the gradient of one process with both images."""

import pytest
from support.runs import ROOT

CONFIGS = sorted(
    str(path.relative_to(ROOT / "configs"))
    for path in (ROOT / "configs").rglob("*_r[15][80]_*.py")
    if path.parent.name not in ("convergence", "fast_detr") and "dino" not in path.name
)
DINO = "dino/dino-4scale_r50_8xb2-12e_coco.py"
# Others are in the slow test.
FEW = [
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py",
    "demo/fast-detr-dense_r18_shapes.py",
    "sam_detr/sam-detr-smca_r50_4xb4-50e_coco.py",
]
TOLERANCE = 2e-3  # of the largest value of a gradient; sums in another order, in float32


CASES = {
    "as it happens": [3, 1],
    "no objects in the first process": [0, 2],
    "no objects in the second process": [2, 0],
}


def check(results, configs):
    for errors in results:
        assert list(errors) == configs
        wrong = [
            (config, case, worst)
            for config in configs
            for case, worst in zip([*CASES, "first case again"], errors[config], strict=True)
            if max(worst.values()) > TOLERANCE
        ]
        assert not wrong


def test_gradient_of_two_times_one_is_that_of_one_times_two(processes, tmp_path):
    """Losses are divided by the mean number of objects, and DDP averages them.

    All parameters are used; otherwise DistributedDataParallel would stop the next step.
    """
    check(processes.run("gradients", tmp_path, configs=FEW, cases=list(CASES.values())), FEW)


def test_no_objects_anywhere(processes, tmp_path):
    """Every parameter still has a gradient, of half the size.

    As in the official codes, the divisor is at least 1 in every process, so 2 in two.
    """
    (config, *_) = FEW
    for errors in processes.run("gradients", tmp_path, configs=[config], cases=[[0, 0]]):
        for worst in errors[config]:
            assert max(worst.values()) == pytest.approx(0.5, abs=0.01)


def test_denoising(processes, tmp_path):
    """No parameter is unused and no process hangs, even if one has no object and so no group.

    Gradients are equal for equal numbers of objects; otherwise images with fewer objects have empty
    background queries, as in DINO.
    """
    cases = [[2, 2], [0, 2], [2, 0], [0, 0]]
    for errors in processes.run("gradients", tmp_path, configs=[DINO], cases=cases):
        first, *_, again = errors[DINO]
        assert max([*first.values(), *again.values()]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted({config.split("/")[0] for config in CONFIGS}))
def test_every_resnet_config(processes, tmp_path, folder):
    configs = [config for config in CONFIGS if config.startswith(f"{folder}/")]
    results = processes.run("gradients", tmp_path, configs=configs, cases=list(CASES.values()))
    check(results, configs)


def test_the_few_are_there():
    assert set(FEW) < set(CONFIGS)
