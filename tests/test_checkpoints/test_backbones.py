"""Local files of ImageNet weights load with their publishers' names."""

import re

import pytest
import safetensors.torch
import torch
from mmdet.models.backbones import SwinTransformer
from mmdet.models.backbones.swin import swin_converter
from mmengine.model import BaseModule
from support.models import randomise
from support.small import small_detector
from support.tolerances import assert_same
from torch import nn

from fastdetr_mmdet.checkpoints import CheckpointError
from fastdetr_mmdet.checkpoints.backbones import load_backbone, load_local_weights
from fastdetr_mmdet.models.backbones import FoldedResNet


def resnet(depth=18, **options):
    return FoldedResNet(depth=depth, base_channels=8, stem_channels=8, **options)


def swin(**options):
    sizes = dict(embed_dims=8, depths=(1, 1), num_heads=(1, 1), strides=(4, 2), window_size=4)
    return SwinTransformer(**{**sizes, "out_indices": (0, 1), **options})


def renamed(weights, rules):
    """Apply each (pattern, replacement) to every name."""
    named = {}
    for key, value in weights.items():
        for old, new in rules:
            key = re.sub(old, new, key, count=1)
        named[key] = value
    return named


def number(before, factor, offset, after="", group=1):
    """Replacement in which a group's number becomes factor * number + offset."""
    return lambda m: f"{before}{factor * int(m[group]) + offset}{after}"


# Source -> renaming of mmdet's names.
RESNETS = {
    "torchvision, timm": [],
    "mmpretrain, mmdet": [("^", "backbone.")],
    "Hugging Face": [
        (r"^conv1", "embedder.embedder.convolution"),
        (r"^bn1", "embedder.embedder.normalization"),
        (r"^layer(\d)", number("encoder.stages.", 1, -1, ".layers")),
        (r"downsample\.0", "shortcut.convolution"),
        (r"downsample\.1", "shortcut.normalization"),
        (r"\.conv(\d)", number(".layer.", 1, -1, ".convolution")),
        (r"\.bn(\d)", number(".layer.", 1, -1, ".normalization")),
        ("^", "resnet."),
    ],
}
MICROSOFT = [
    ("stages", "layers"),
    (r"attn\.w_msa", "attn"),
    (r"ffn\.layers\.0\.0", "mlp.fc1"),
    (r"ffn\.layers\.1", "mlp.fc2"),
    (r"patch_embed\.projection", "patch_embed.proj"),
]
HF_SWIN = [
    (r"patch_embed\.proj", "swin.embeddings.patch_embeddings.projection"),
    (r"patch_embed\.norm", "swin.embeddings.norm"),
    (r"^layers", "swin.encoder.layers"),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("^norm", "swin.layernorm"),
    ("^head", "classifier"),
]
# Source -> renaming of Microsoft's names; Hugging Face's are those of transformers 4 and 5.
SWINS = {
    "Microsoft": [],
    "timm": [(r"layers\.0\.down", "layers.1.down")],  # a stage includes the merging before it
    "torchvision": [
        (r"patch_embed\.proj", "features.0.0"),
        (r"patch_embed\.norm", "features.0.2"),
        (r"layers\.(\d)\.blocks", number("features.", 2, 1)),
        (r"layers\.(\d)\.downsample", number("features.", 2, 2)),
        (r"mlp\.fc1", "mlp.0"),
        (r"mlp\.fc2", "mlp.3"),
    ],
    "Hugging Face": [
        *HF_SWIN,
        (r"attn\.proj", "attention.output.dense"),
        (r"attn\.(query|key|value|relative)", r"attention.self.\1"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
    ],
    "Hugging Face 5": [
        *HF_SWIN,
        (r"attn\.proj", "attention.o_proj"),
        (r"attn\.relative", "attention.relative_position_bias.relative"),
        (r"attn\.(?=query|key|value)(\w)\w+", r"attention.\1_proj"),
    ],
}


@pytest.mark.parametrize("source", RESNETS)
def test_resnets(source, tmp_path):
    """Through init_cfg, as in a config; heads are not used."""
    given = randomise(resnet()).state_dict()
    heads = ["fc.weight", "head.fc.weight", "bbox_head.cls_branches.0.weight"]
    heads = {"torch": heads[:1], "mmpre": heads[1:]}.get(source[:5], ["classifier.1.weight"])
    file = tmp_path / "weights.pth"
    torch.save(renamed(given, RESNETS[source]) | dict.fromkeys(heads, torch.ones(3)), file)
    init_cfg = dict(type="Pretrained", checkpoint=str(file))
    backbone = resnet(num_stages=3, out_indices=(2,), strides=(1, 2, 2), dilations=(1,) * 3,
                      init_cfg=init_cfg)  # fmt: skip
    load_local_weights(backbone)
    backbone.init_weights()  # does not change it
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, given[key]), key


@pytest.mark.parametrize("source", SWINS)
def test_swins(source, tmp_path):
    """The result equals mmdet's own convert_weights of the official file."""
    given = randomise(swin()).state_dict()
    weights = {k: v for k, v in renamed(given, MICROSOFT).items() if not re.match(r"norm\d", k)}
    weights |= {"norm.weight": torch.ones(16), "head.weight": torch.ones(3, 16)}
    expected = swin_converter(dict(weights))
    if "Hugging" in source:
        for key in [key for key in weights if ".qkv." in key]:
            parts = zip(("query", "key", "value"), weights.pop(key).chunk(3), strict=True)
            weights |= {key.replace("qkv", part): rows for part, rows in parts}
    file = tmp_path / "weights.safetensors"
    file.write_bytes(safetensors.torch.save(renamed(weights, SWINS[source])))
    backbone = swin(init_cfg=dict(type="Pretrained", checkpoint=str(file)))
    load_local_weights(backbone)
    for key, value in backbone.state_dict().items():
        if not re.match(r"norm\d", key):
            assert torch.equal(value, expected[f"backbone.{key}"]), key
    own = renamed(backbone.state_dict(), [("^", "backbone.")])
    file.write_bytes(safetensors.torch.save(own))
    again = swin()
    load_backbone(again, file)
    assert_same(again.state_dict(), backbone.state_dict())


class Block(nn.Module):
    """Weights of a block of mmpretrain's ConvNeXt, V1 and V2 together."""

    def __init__(self, use_grn):
        super().__init__()
        self.depthwise_conv = nn.Conv2d(4, 4, 7, groups=4)
        self.norm = nn.LayerNorm(4)
        self.pointwise_conv1, self.pointwise_conv2 = nn.Linear(4, 16), nn.Linear(16, 4)
        if use_grn:
            self.grn = nn.ParameterDict(dict(gamma=torch.zeros(16), beta=torch.zeros(16)))
        self.gamma = nn.Parameter(torch.zeros(4))


class ConvNeXt(BaseModule):
    """mmpretrain's names; mmpretrain may not be installed."""

    __module__ = "mmpretrain.models.backbones"

    def __init__(self, use_grn, **options):
        super().__init__(**options)
        pairs = [(nn.Conv2d(3, 4, 4), nn.LayerNorm(4)), (nn.LayerNorm(4), nn.Conv2d(4, 4, 2))]
        self.downsample_layers = nn.ModuleList(nn.Sequential(*pair) for pair in pairs)
        self.stages = nn.ModuleList(nn.Sequential(Block(use_grn), Block(use_grn)) for _ in range(2))
        self.norm1 = nn.LayerNorm(4)


_BLOCK = r"stages\.(\d)\.(\d)\."
# Source -> renaming of mmpretrain's names.
CONVNEXTS = {
    "mmpretrain": [(r"(.*)", r"backbone.\1")],
    "Facebook": [("depthwise_conv", "dwconv"), ("pointwise_conv", "pwconv")],
    "timm": [
        (_BLOCK, r"stages.\1.blocks.\2."),
        (r"downsample_layers\.0", "stem"),
        (r"downsample_layers\.(\d)", r"stages.\1.downsample"),
        ("depthwise_conv", "conv_dw"),
        ("pointwise_conv", "mlp.fc"),
        ("grn.gamma", "mlp.grn.weight"),
        ("grn.beta", "mlp.grn.bias"),
    ],
    "torchvision": [
        (r"stages\.(\d)", number("features.", 2, 1)),
        (r"downsample_layers\.(\d)", number("features.", 2, 0)),
        ("depthwise_conv", "block.0"),
        (r"(features.[13].\d\.)norm", r"\1block.2"),
        ("pointwise_conv1", "block.3"),
        ("pointwise_conv2", "block.5"),
        (r"(?<!grn\.)gamma", "layer_scale"),
    ],
    "Hugging Face": [
        (_BLOCK, r"convnextv2.encoder.stages.\1.layers.\2."),
        (r"downsample_layers\.0\.0", "convnextv2.embeddings.patch_embeddings"),
        (r"downsample_layers\.0\.1", "convnextv2.embeddings.layernorm"),
        (r"downsample_layers\.(\d)", r"convnextv2.encoder.stages.\1.downsampling_layer"),
        ("depthwise_conv", "dwconv"),
        (r"(layers\.\d\.)norm", r"\1layernorm"),
        ("pointwise_conv", "pwconv"),
        (r"(?<!grn\.)gamma", "layer_scale_parameter"),
        ("grn.gamma", "grn.weight"),
        ("grn.beta", "grn.bias"),
    ],
}


@pytest.mark.parametrize("source", CONVNEXTS)
def test_convnexts(source, tmp_path):
    """Pointwise layers may be convolutions, and scales have more axes."""
    v2 = source != "torchvision"
    given = randomise(ConvNeXt(v2)).state_dict()
    kept = {key: value for key, value in given.items() if not key.startswith("norm1")}
    named = renamed(kept, CONVNEXTS[source])
    for key, value in named.items():
        if re.search("pointwise_conv1|fc1|layer_scale", key):
            named[key] = value.unsqueeze(-1).unsqueeze(-1)
    named["head.fc.weight" if source == "timm" else "classifier.2.weight"] = torch.ones(5, 4)
    torch.save(named, tmp_path / "it.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "it.pth"), prefix="backbone.")
    backbone = ConvNeXt(v2, init_cfg=init_cfg)
    load_local_weights(backbone)
    for key, value in backbone.state_dict().items():
        assert key.startswith("norm1") or torch.equal(value, given[key]), key


@pytest.mark.parametrize(
    "init_cfg",
    [
        None,
        [dict(type="Xavier", layer="Conv2d")],
        dict(type="Pretrained", checkpoint="torchvision://a"),
        dict(type="Pretrained", checkpoint="a.pth", prefix="b."),
    ],
)
def test_what_is_left_to_mmengine(init_cfg):
    backbone = resnet(init_cfg=init_cfg)
    load_local_weights(backbone)
    assert not backbone.is_init
    load_local_weights(nn.Linear(1, 1))


def test_a_detector_fills_its_backbone(tmp_path):
    name = "conditional_detr/conditional-detr_r50_8xb2-50e_coco"
    given = small_detector(name).backbone.state_dict()
    torch.save(renamed(given, RESNETS["Hugging Face"]), tmp_path / "it.pth")
    model = small_detector(name, 1)
    model.backbone.init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "it.pth"))
    model.init_weights()
    assert_same(model.backbone.state_dict(), given)


def test_a_swin_of_another_window(tmp_path):
    """Tables are interpolated, as in mmdet."""
    weights = swin().state_dict()
    key = "stages.0.blocks.0.attn.w_msa.relative_position_bias_table"
    weights[key] = torch.linspace(0, 1, 7)[:, None, None].expand(7, 7, 1).reshape(49, 1)
    torch.save(weights, tmp_path / "a.pth")
    backbone = swin(window_size=7)
    load_backbone(backbone, tmp_path / "a.pth")
    found = backbone.state_dict()[key].view(13, 13)
    assert torch.allclose(found, found[:, :1].expand(13, 13))  # rows stay rows
    assert found[0, 0] < found[6, 0] < found[12, 0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: {"vit.a.b": torch.ones(1)}, ["vit.a.b", "layer1.0.conv1.weight", "Hugging"]),
        (lambda w: {k: v for k, v in w.items() if "layer4.1" not in k},
         ["10 missing", "layer4.1", "torchvision"]),
        (lambda w: w | {"layer2.2.bn1.bias": torch.ones(1)}, ["1 unknown", "layer2.2.bn1"]),
        (lambda w: w | {"conv1.weight": torch.ones(64, 3, 7, 7)},
         ["1 of another shape", "64, 3, 7, 7", "8, 3, 7, 7"]),
    ],
)  # fmt: skip
def test_weights_of_another_backbone(change, named, tmp_path):
    torch.save(change(resnet().state_dict()), tmp_path / "it.pth")
    backbone = resnet(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "it.pth")))
    with pytest.raises(CheckpointError) as error:
        load_local_weights(backbone)
    assert [word for word in ["it.pth", *named] if word not in str(error.value)] == []


@pytest.mark.slow
@pytest.mark.parametrize("source", ["timm", "transformers"])
@torch.no_grad()
def test_maps_of_the_other_code(source, tmp_path):
    """With random weights and maps larger than the window; on smaller maps only mmdet shifts it."""
    module = pytest.importorskip(source, reason=f"{source} is not installed", exc_type=ImportError)
    sizes = dict(embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4), window_size=4)
    if source == "timm":
        resnet18 = module.create_model("resnet18")
        swin_tiny = module.models.swin_transformer.SwinTransformer(img_size=256, **sizes)
        maps = [model.forward_features for model in (resnet18, swin_tiny)]
    else:
        stages = dict(depths=[2] * 4, hidden_sizes=[64, 128, 256, 512], layer_type="basic")
        resnet18 = module.ResNetModel(module.ResNetConfig(embedding_size=64, **stages))
        swin_tiny = module.SwinModel(module.SwinConfig(image_size=256, **sizes))
        maps = [
            lambda x, model=model: model(x).last_hidden_state for model in (resnet18, swin_tiny)
        ]
    own = swin(depths=(2,) * 4, num_heads=(1, 2, 2, 4), embed_dims=16, strides=(4, 2, 2, 2),
               out_indices=(3,))  # fmt: skip
    image = torch.randn(1, 3, 256, 256)
    for model, theirs, ours in zip(
        (resnet18, swin_tiny), maps, (FoldedResNet(depth=18, out_indices=(3,)), own), strict=True
    ):
        torch.save(randomise(model.eval()).state_dict(), tmp_path / "weights.pth")
        ours.eval()
        load_backbone(ours, tmp_path / "weights.pth")
        if ours is own:  # the last norm is the classifier's in files, the output's in mmdet
            final = [value for key, value in model.state_dict().items()
                     if re.fullmatch(r"(norm|layernorm)\.(weight|bias)", key)]  # fmt: skip
            ours.norm3.load_state_dict(dict(zip(("weight", "bias"), final, strict=True)))
        expected, (found,) = theirs(image), ours(image)
        if expected.dim() == 3:
            expected = expected.view(1, 8, 8, -1)
        if expected.shape != found.shape:
            expected = expected.permute(0, 3, 1, 2)
        assert torch.allclose(expected, found, rtol=0, atol=1e-5 * expected.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("source", ["timm", "torchvision"])
@torch.no_grad()
def test_maps_of_the_other_convnext(source, tmp_path):
    """mmpretrain cannot be imported together with transformers 5."""
    mmpretrain = pytest.importorskip("mmpretrain.models", reason="mmpretrain is not installed")
    pytest.importorskip(source, reason=f"{source} is not installed")
    depths, channels = (1, 2, 1, 1), (8, 16, 24, 32)
    if source == "timm":
        from timm.models.convnext import ConvNeXt

        model = ConvNeXt(depths=depths, dims=channels, num_classes=5)
        convolutions = [model.stem, *model.stages]
    else:
        from torchvision.models.convnext import CNBlockConfig, ConvNeXt

        blocks = zip(channels, [*channels[1:], None], depths, strict=True)
        model = ConvNeXt([CNBlockConfig(*block) for block in blocks], num_classes=5)
        convolutions = model.features
    torch.save(randomise(model).eval().state_dict(), tmp_path / "it.pth")
    arch = dict(depths=depths, channels=channels)
    own = mmpretrain.ConvNeXt(arch, out_indices=[3], gap_before_final_norm=False,
                              layer_scale_init_value=1.0)  # fmt: skip
    own.eval()
    load_backbone(own, tmp_path / "it.pth")
    own.norm3 = nn.Identity()
    image = torch.randn(1, 3, 64, 96)
    expected = nn.Sequential(*convolutions)(image)
    assert torch.allclose(expected, own(image)[0], rtol=0, atol=1e-5 * expected.abs().max())
