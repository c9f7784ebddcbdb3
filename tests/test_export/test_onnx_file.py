"""Exported files: standard operators, run by onnxruntime, equal to PyTorch on two sizes."""

import json
from dataclasses import replace

import pytest
import torch
from support.small import CONFIGS, small_detector

from fastdetr_mmdet.export import ExportError, Preprocessing, compare, export_onnx, onnx_file
from fastdetr_mmdet.models.queries.two_stage_queries import distinct_first
from fastdetr_mmdet.utils.cli import UserError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PREPROCESSING = Preprocessing(
    classes=tuple("abcde"),
    channels="loaded",
    mean=(1.0,),
    std=(2.0,),
    scale=(96, 64),
    keep_ratio=True,
    pad_to=(32, 32),
)
# One layer each, because more layers have the same operators.
SMALL = dict(
    transformer__encoder__num_layers=1,
    transformer__decoder__num_layers=1,
    backbone__in_channels=1,
)
SAM = "sam_detr/sam-detr-smca_r50_4xb4-50e_coco"
DEMO = "demo/fast-detr_r18_shapes"
ONE_CHANNEL = dict(backbone__in_channels=1)
DENSE = dict(
    transformer__queries__num_convs=1,
    transformer__queries__box_form="distance",
    transformer__queries__distinct=0.5,
    transformer__queries__residual_classes=True,
)


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    """A detector with RoIAlign and Gaussian prior, and its file for padded images of any size."""
    detector = small_detector(SAM, **SMALL)
    path = tmp_path_factory.mktemp("export") / "detector.onnx"
    comparisons = export_onnx(detector, path, PREPROCESSING, dynamic=True)
    return detector, path, comparisons


def about(path):
    return {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}


@pytest.mark.slow
def test_equals_pytorch_on_any_size(dynamic):
    """With masks of padded images and the same padding as PyTorch."""
    detector, path, comparisons = dynamic
    assert [c.image_size for c in comparisons] == [(1, 64, 96), (2, 65, 65)]
    for size in ((3, 75, 101), (1, 33, 224), (2, 128, 160)):
        comparisons.append(compare(path, detector, size, seed=1))
    for comparison in comparisons:
        assert comparison.agrees(), str(comparison)
        assert comparison.boxes < 1e-3  # pixels
    other = small_detector(SAM, **SMALL)
    other.make_memory = lambda features, images, samples: type(other).make_memory(
        other, features, images, None
    )
    assert not compare(path, other, (2, 128, 160)).agrees()  # masks matter


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, overrides",
    [(SAM, SMALL), (DEMO, ONE_CHANNEL), (DEMO, ONE_CHANNEL | DENSE)],
    ids=["sam", "demo", "dense proposals"],  # the demo has no encoder
)
def test_fixed_files_of_padded_images(name, overrides, tmp_path):
    detector, path = small_detector(name, **overrides), tmp_path / "detector.onnx"
    found = export_onnx(detector, path, PREPROCESSING, batch_size=2)
    assert about(path)["pad_to"] == [96, 96]
    found.append(compare(path, detector, (2, 96, 96), seed=1))
    assert all(comparison.agrees() for comparison in found), list(map(str, found))


@pytest.mark.parametrize(
    "overrides, path, message",
    [
        (dict(test_cfg__separate_sizes=True), "a.onnx", r"separate_sizes=True.*--dynamic"),
        (
            dict(transformer__decoder__aligner__ignore_padding=True),
            "a.onnx",
            r"ignore_padding=True.*--dynamic",
        ),
        ({}, ".", "is a folder"),
        ({}, "missing/a.onnx", "make the folder"),
        (None, "a.onnx", r"Linear cannot be exported.*for FastDETR"),
    ],
)
def test_what_cannot_be_exported(overrides, path, message, tmp_path):
    detector = torch.nn.Linear(2, 2)
    if overrides is not None:
        detector = small_detector(SAM, **SMALL, **overrides)
    with pytest.raises(UserError, match=message):
        export_onnx(detector, tmp_path / path, PREPROCESSING)
    assert not list(tmp_path.iterdir())


def test_distinct_boxes_of_any_number(tmp_path):
    """The recipe's selection of queries, in a file with free sizes."""

    class Distinct(torch.nn.Module):
        def forward(self, corners):
            return distinct_first(corners, 0.5)

    boxes = torch.rand(2, 40, 4).sort(-1).values
    sizes = {"corners": {1: torch.export.Dim("boxes", min=2, max=900)}}
    program = torch.onnx.export(
        Distinct().eval(), (boxes[:, :9],), dynamo=True, dynamic_shapes=sizes, verbose=False
    )
    program.save(tmp_path / "distinct.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "distinct.onnx")
    found = session.run(None, {session.get_inputs()[0].name: boxes.numpy()})
    for actual, expected in zip(found, distinct_first(boxes, 0.5), strict=True):
        assert (actual == expected.numpy()).all()


@pytest.mark.slow
def test_holds_standard_operators_only(dynamic):
    model = onnx.load(dynamic[1])
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if o.version >= 17] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    kinds = {node.op_type for node in model.graph.node}
    assert {"RoiAlign", "GridSample", "TopK"} <= kinds


@pytest.mark.slow
def test_says_how_it_is_used(dynamic):
    graph = onnx.load(dynamic[1]).graph
    images, sizes = graph.input
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert dims == ["batch", 1, "height", "width"]
    assert (images.name, sizes.name) == ("images", "image_sizes")
    assert [output.name for output in graph.output] == ["boxes", "scores", "labels"]
    entries = about(dynamic[1])
    assert entries["classes"] == list("abcde") and entries["channels"] == "loaded"
    assert entries["mean"] == [1] and entries["scale"] == [96, 64] and entries["pad_to"] == [32, 32]
    assert entries["smallest_size"] == [33, 33]


def test_free_axes_have_readable_names():
    """Also the number of detections, which torch names by a formula."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    formula = "Min(100, 6*Min(50, s1*s2))"
    images = helper.make_tensor_value_info("images", kind, ["s0", 3, "s1", "s2"])
    outputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, shape in zip(
            ("boxes", "scores", "labels"),
            (["s0", formula, 4], ["s0", formula], ["s0", 100]),
            strict=True,
        )
    ]
    graph = helper.make_graph([], "detector", [images], outputs)
    model = helper.make_model(graph)
    onnx_file._name_axes(model)
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [
        ["batch", 3, "height", "width"],
        ["batch", "k", 4],
        ["batch", "k"],
        ["batch", 100],
    ]


@pytest.mark.slow
def test_the_comparison_notices(dynamic):
    """It fails with other weights."""
    path = dynamic[1]
    other = small_detector(SAM, seed=1, **SMALL)
    comparison = compare(path, other, (1, 96, 96))
    assert not comparison.agrees() and comparison.largest > 1e-3
    again = small_detector(SAM, **SMALL)
    again.bbox_head.test_cfg["score_thr"] = 0.5  # exported files have none
    assert compare(path, again, (1, 96, 96)).agrees()
    assert again.bbox_head.test_cfg["score_thr"] == 0.5
    with torch.no_grad():
        again.bbox_head.reg_branches[0][-1].bias[0] += 0.02
    moved = compare(path, again, (1, 96, 96))
    assert not moved.agrees() and moved.scores < 1e-3 and moved.boxes > 0.1


@pytest.mark.slow
def test_a_disagreement_is_not_written(dynamic, tmp_path):
    """The former file stays, without other files."""
    detector = small_detector(SAM, seed=1, **SMALL)
    target = tmp_path / "detector.onnx"
    target.write_bytes(b"before")
    with pytest.raises(ExportError, match="was not written, because onnxruntime disagrees"):
        onnx_file._write(dynamic[1].read_bytes(), target, detector, [(1, 96, 96)])
    assert target.read_bytes() == b"before" and list(tmp_path.iterdir()) == [target]


class Counting(torch.nn.Module):
    """Reads the width as a number."""

    def forward(self, images):
        return images * sum(range(images.shape[3]))


def test_part_that_reads_a_size_is_refused():
    """Otherwise the size would silently be fixed."""
    images = torch.zeros(2, 3, 40, 50)
    with pytest.raises(ExportError, match=r"with free image sizes.*leave --dynamic out"):
        onnx_file._trace(Counting(), [images], dynamic=True)
    onnx_file._trace(Counting(), [images], dynamic=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_every_shipped_model(name, dynamic, tmp_path, record_property):
    """Fixed, and with free sizes at two sizes, for images that fill the batch."""
    unpadded = replace(
        PREPROCESSING, channels="RGB", mean=(1.0,) * 3, std=(2.0,) * 3, pad_to=(1, 1)
    )
    path = tmp_path / "detector.onnx"
    for comparison in export_onnx(small_detector(name), path, unpadded, dynamic):
        record_property("difference", str(comparison))
        print(name, comparison)
        assert comparison.agrees() and comparison.boxes < 1e-3
    assert {node.domain for node in onnx.load(path).graph.node} == {""}
