"""The warm-up is a share of the training's length."""

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS
from support.runs import log_rows, make_runner

WARM_UP = dict(type="mmdet.HorizonWarmUpLR", by_epoch=False)


def rates(steps, **options):
    """Learning rate of every step."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = PARAM_SCHEDULERS.build({**WARM_UP, **options, "optimizer": optimizer, "end": steps})
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("steps", "options", "first", "full"),
    [
        (100, {}, 0.04, 4),  # 5 of 100 steps, the last of them at the full rate
        (20, dict(share=0.5, start_factor=0.1), 0.1, 9),
        (4, {}, 0.04, 1),  # at least two steps
        (1000, dict(most=10), 0.04, 9),
    ],
)
def test_rates_rise_over_the_share(steps, options, first, full):
    found = rates(steps, **options)
    rising = [first + (1 - first) * step / full for step in range(full)]
    assert found == pytest.approx(rising + [1.0] * (steps - full))


def test_the_runner_gives_the_length(tiny_config_file, shapes, tmp_path):
    schedule, epochs = [dict(WARM_UP, share=0.5)], dict(train_cfg__max_epochs=2)
    runner = make_runner(tiny_config_file, tmp_path, shapes, param_scheduler=schedule, **epochs)
    runner.train()
    (warm_up,) = runner.param_schedulers
    assert warm_up.end == round(runner.max_iters / 2) > 3
    first, last = (log_rows(tmp_path)[row]["lr"] for row in (0, -1))
    assert first < last == pytest.approx(runner.optim_wrapper.param_groups[0]["initial_lr"])


@pytest.mark.parametrize(
    ("options", "named"), [(dict(share=1.0), "share=1.0"), (dict(by_epoch=True), "by_epoch=False")]
)
def test_wrong_settings_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        rates(4, **options)
