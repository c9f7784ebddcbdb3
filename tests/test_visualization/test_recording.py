"""Recording does not change the model, and leaves no hooks."""

from unittest.mock import Mock

import pytest
import torch
from support.mixes import MIXES, mix
from support.models import make_batch
from torch import nn

from fastdetr_mmdet.visualization import record


def hooks(model):
    """All forward hooks of all modules."""
    names = ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks")
    return [hook for module in model.modules() for name in names for hook in getattr(module, name)]


def predicted(model):
    with torch.no_grad():
        inputs, samples = make_batch()
        results = model.predict(inputs, samples)
        return [x for r in results for x in (r.pred_instances.bboxes, r.pred_instances.scores)]


@pytest.mark.parametrize("name", MIXES)
def test_outputs_are_the_same_to_the_bit_and_nothing_is_left(name):
    model = mix(name)
    state = {name: set(vars(module)) for name, module in model.named_modules()}
    before = predicted(model)
    assert not hooks(model)
    with record(model) as recording:
        assert hooks(model)
        during = predicted(model)
        for call in recording.layers:
            call.explain()
    assert len(recording.layers) == len(model.transformer.decoder.layers)
    assert not hooks(model)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == state
    for expected, *others in zip(before, during, predicted(model), strict=True):
        assert all(torch.equal(expected, other) for other in others)


def test_nothing_is_left_after_an_exception():
    model = mix("plain")
    model.transformer.decoder.layers[1].norm3.forward = Mock(side_effect=RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"), record(model):
        predicted(model)
    assert not hooks(model)


def test_second_pass_replaces_the_first():
    model = mix("plain")
    with torch.no_grad(), record(model) as recording:
        model._forward(*make_batch(seed=1))
        first = recording.layers[0].memory.tokens
        model._forward(*make_batch(seed=2))
    assert len(recording.layers) == len(model.transformer.decoder.layers)
    assert not torch.equal(recording.layers[0].memory.tokens, first)


def test_other_models_are_refused():
    with pytest.raises(TypeError, match=r"^Linear has no transformer\.decoder whose layers have a"):
        with record(nn.Linear(2, 2)):
            pass
