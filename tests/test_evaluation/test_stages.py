"""AP of every stage in known cases."""

import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from support.models import randomise

from fastdetr_mmdet.evaluation.__main__ import main
from fastdetr_mmdet.evaluation.evaluate import open_set
from fastdetr_mmdet.evaluation.stages import PROPOSALS, SELECTED, TRUE_BOXES, measure_stages
from fastdetr_mmdet.models import TwoStageQueries
from fastdetr_mmdet.structures import Proposals
from fastdetr_mmdet.structures.boxes import inverse_sigmoid, xyxy_to_cxcywh
from fastdetr_mmdet.utils.cli import UserError

QUERIES, DECODER = "model.transformer.queries", "model.transformer.decoder"


@pytest.fixture
def opened(tiny_config_file, shapes):
    """Makes a model of the changed tiny config, and its test set."""

    def make(**changes):
        config = Config.fromfile(tiny_config_file)
        config.merge_from_dict({"data_root": f"{shapes}/", "model.backbone.init_cfg": None})
        config.merge_from_dict(changes)
        torch.manual_seed(0)
        model = MODELS.build(config.model).eval()
        return model, open_set(config, ("test",), print)

    return make


class Truth(TwoStageQueries):
    """Proposals are the objects, each twice, the second a little lower."""

    samples = infos = None
    confused = False  # whether the first object's best class is wrong

    def forward(self, memory, proposal_branches=None, targets=None):
        queries, _ = super().forward(memory, proposal_branches)
        boxes = torch.full((len(self.samples), 40, 4), 0.01)
        scores = torch.full((len(self.samples), 40, 6), -20.0)
        for image, sample in enumerate(self.samples):
            info = self.infos[sample.img_id]
            objects = info["instances"]
            corners = torch.tensor([o["bbox"] for o in objects]).reshape(-1, 4)
            size = torch.tensor([info["width"], info["height"]] * 2)
            own = xyxy_to_cxcywh(corners / size).repeat_interleave(2, dim=0)
            boxes[image, : len(own)] = own
            for number, one in enumerate(objects):
                label = one["bbox_label"] if self.class_aware else 0
                scores[image, 2 * number : 2 * number + 2, label] = 5.0 - number
            if self.confused and objects:
                scores[image, 0, (objects[0]["bbox_label"] + 1) % 6] = 9.0
        logits = queries.reference_logits.clone()
        logits[:] = inverse_sigmoid(boxes[:, : 2 * logits.shape[1] : 2])
        return queries.with_reference(logits), Proposals(scores, boxes)


def truth(model, data):
    queries = model.transformer.queries
    queries.__class__ = Truth
    queries.infos, predict = data.infos, model.predict

    def predict_knowing(inputs, samples, rescale=True):
        queries.samples = samples
        return predict(inputs, samples, rescale)

    model.predict = predict_knowing
    return model


@pytest.mark.parametrize("class_aware, confused", [(True, False), (True, True), (False, False)])
def test_known_answers(opened, class_aware, confused):
    some = {} if class_aware else {"test_dataloader.dataset.indices": 4}  # the first images only
    model, data = opened(**{f"{QUERIES}.class_aware": class_aware, **some})
    truth(model, data).transformer.queries.confused = confused
    rows, notes = measure_stages(model, data)
    by_stage = {row.pop("stage"): row for row in rows}
    assert list(by_stage) == [PROPOSALS, SELECTED, "layer 1", "layer 2", TRUE_BOXES]
    proposals = by_stage[PROPOSALS]
    assert proposals["class_agnostic"] is not class_aware
    assert bool(notes) is not class_aware
    assert proposals["AR100"] == proposals["nms"]["AR100"] == 1
    assert 0.2 < proposals["AP"] < 0.9  # duplicates
    assert 0.3 < proposals["nms"]["AP"] < 0.99 or not confused
    assert proposals["nms"]["AP"] == pytest.approx(1) or confused
    # box branches start at zero, so boxes are the references; 60 pairs are all
    for stage in ("layer 1", "layer 2", TRUE_BOXES):
        assert by_stage[stage]["AR100"] == pytest.approx(1) and by_stage[stage]["AP"] < 0.9


@pytest.mark.parametrize("queries", ["two-stage", "denoising", "boxes", "points", "none"])
def test_last_layer_is_what_the_evaluator_says(opened, queries):
    wrapped = dict(type="TwoStageQueries", class_aware=True, content="memory")
    other: dict = {
        "denoising": dict(type="DenoisingQueries", queries=wrapped),
        "boxes": dict(type="LearnedBoxQueries"),
        "points": dict(type="LearnedQueries", reference="mlp"),
        "none": dict(type="LearnedQueries"),
    }
    changes = {QUERIES: dict(_delete_=True, **other[queries])} if queries in other else {}
    if queries == "none":
        plain = dict(_delete_=True, type="MultiheadCrossAttention")
        changes |= {f"{DECODER}.refine": False, f"{DECODER}.cross_attn": plain}
    model, data = opened(**changes)
    if queries == "two-stage":
        truth(model, data)
    else:
        randomise(model)
    before = {name: p.clone() for name, p in model.named_parameters()}
    rows, notes = measure_stages(model, data)
    stages = [row["stage"] for row in rows]
    assert (PROPOSALS in stages) == (queries in ("two-stage", "denoising"))
    assert (TRUE_BOXES in stages) == (queries != "none")
    if queries == "boxes":  # a stage without detections
        model.bbox_head.test_cfg["score_thr"] = 0.999
        assert all(row["AP"] == row["nms"]["AP"] == 0 for row in measure_stages(model, data)[0])
        model.bbox_head.test_cfg["score_thr"] = 0.0
    assert len(notes) == {"two-stage": 0, "denoising": 0, "none": 2}.get(queries, 1)
    for batch in data.loader:
        with torch.no_grad():
            data.evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
    expected = data.evaluator.evaluate(len(data.infos))
    last = rows[stages.index("layer 2")]
    for name, theirs in (("AP", "mAP"), ("AP50", "mAP_50")):
        assert round(last[name], 3) == expected[f"coco/bbox_{theirs}"]
    assert queries != "two-stage" or last["AP"] > 0.01
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("where", [pytest.param("neck", marks=pytest.mark.slow), "encoder"])
def test_auxiliary_heads_are_evaluated_as_mmdet_does(opened, where):
    head = dict(
        type="ATSSHead",
        in_channels=32,
        feat_channels=32,
        stacked_convs=1,
        norm_cfg=None,
        anchor_generator=dict(
            type="AnchorGenerator", ratios=[1.0], octave_base_scale=1, scales_per_octave=1,
            strides=[16, 32]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
    )  # fmt: skip
    model, data = opened(**{"model.aux_heads": [head], "model.aux_heads_on": where})
    randomise(model, scale=0.02)
    rows, _ = measure_stages(model, data)
    assert rows[0]["stage"] == "auxiliary head 0 (ATSSHead)"
    nms = dict(type="nms", iou_threshold=0.7)
    given = []
    source = model.transformer.encoder if where == "encoder" else model.neck
    hook = source.register_forward_hook(lambda module, arguments, made: given.append(made))
    for batch in data.loader:
        batch = model.data_preprocessor(batch)
        with torch.no_grad():
            model.predict(**{f"batch_{key}": value for key, value in batch.items()})
            features = given[-1].maps() if where == "encoder" else given[-1]
            found = model.aux_heads[0].predict_by_feat(
                *model.aux_heads[0](features),
                batch_img_metas=[sample.metainfo for sample in batch["data_samples"]],
                cfg=ConfigDict(nms_pre=1000, score_thr=0.0, nms=nms, max_per_img=100),
                rescale=True,
            )
        for sample, instances in zip(batch["data_samples"], found, strict=True):
            sample.pred_instances = instances
        samples = [sample.to_dict() for sample in batch["data_samples"]]
        data.evaluator.process(data_samples=samples, data_batch=batch)
    hook.remove()
    data.evaluator.metrics[0].metric_items = ["AR@100"]
    expected = data.evaluator.evaluate(len(data.infos))["coco/bbox_AR@100"]
    assert expected > 0.01 and round(rows[0]["nms"]["AR100"], 3) == expected


def test_selection_is_what_is_measured(opened):
    """The row has the queries' proposals, not all tokens'."""
    model, data = opened(**{"model.num_queries": 1})
    with torch.no_grad():
        rows, _ = measure_stages(randomise(model), data)
    by_stage = {row["stage"]: row for row in rows}
    assert by_stage[SELECTED]["AR100"] < by_stage[PROPOSALS]["AR100"]


def test_command(tiny_run, tmp_path, capsys):
    out = tmp_path / "stages.json"
    given = [str(tiny_run.config), str(tiny_run.checkpoint)]
    options = ["--cfg-options", f"data_root={tiny_run.data_root}/"]
    assert main([*given, "--json", str(out), *options]) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    stages = [PROPOSALS, SELECTED, "layer 1", "layer 2", TRUE_BOXES]
    assert [row["stage"] for row in found["stages"]] == stages
    for row in found["stages"]:
        assert f"{row['AP']:.4f}" in next(x for x in printed.splitlines() if row["stage"] in x)
    assert found["images"] == 8 and found["nms_iou"] == 0.7
    voc = ["test_evaluator.type=VOCMetric", "test_evaluator._delete_=True"]
    assert main([given[0], str(tmp_path / "gone.pth"), *options]) == 2
    assert main([*given, *options, *voc]) == 1
    assert "VOCMetric" in capsys.readouterr().err


def test_other_detectors(opened):
    _, data = opened()
    with pytest.raises(UserError, match="Linear"):
        measure_stages(torch.nn.Linear(1, 1), data)
