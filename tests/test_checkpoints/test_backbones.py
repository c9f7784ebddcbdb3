"""Local files of ImageNet weights load with their publishers' names."""

import re

import pytest
import safetensors.torch
import torch
from mmdet.models.backbones import ResNet, SwinTransformer
from mmdet.models.backbones.swin import swin_converter
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from support.models import randomise
from support.small import small_detector
from torch import nn

from fastdetr_mmdet.checkpoints import CheckpointError
from fastdetr_mmdet.checkpoints.backbones import load_backbone, load_local_weights
from fastdetr_mmdet.models.backbones import FoldedResNet

# Microsoft's names -> Hugging Face's state_dict() names in transformers 4 and 5.
HF_SWIN = {
    "patch_embed.proj.": "swin.embeddings.patch_embeddings.projection.",
    "patch_embed.norm.": "swin.embeddings.norm.",
    "layers.": "swin.encoder.layers.",
    "attn.proj.": "attention.output.dense.",
    "attn.qkv.": "attention.self.qkv.",
    "attn.relative": "attention.self.relative",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
}
HF_SWIN_5 = HF_SWIN | {
    "attn.proj.": "attention.o_proj.",
    "attn.relative": "attention.relative_position_bias.relative",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
}


def resnet(depth=18, **options):
    return FoldedResNet(depth=depth, base_channels=8, stem_channels=8, **options)


def swin(**options):
    sizes = dict(embed_dims=8, depths=(1, 1), num_heads=(1, 1), strides=(4, 2), window_size=4)
    return SwinTransformer(**{**sizes, "out_indices": (0, 1), **options})


def hugging_face_resnet(key):
    """Numbers stages from 0, and convolutions and norms of a block in lists from 0."""
    key = re.sub(r"^conv1", "embedder.embedder.convolution", key)
    key = re.sub(r"^bn1", "embedder.embedder.normalization", key)
    key = re.sub(r"^layer(\d)", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers", key)
    key = key.replace("downsample.0", "shortcut.convolution")
    key = key.replace("downsample.1", "shortcut.normalization")
    for ours, theirs in (("conv", "convolution"), ("bn", "normalization")):
        key = re.sub(rf"\.{ours}(\d)", lambda m, t=theirs: f".layer.{int(m[1]) - 1}.{t}", key)
    return f"resnet.{key}"


RESNETS = {
    "torchvision, timm": (str, "fc.weight"),
    "mmpretrain": ("backbone.{}".format, "head.fc.weight"),
    "a detector's": ("backbone.{}".format, "bbox_head.cls_branches.0.weight"),
    "Hugging Face": (hugging_face_resnet, "classifier.1.weight"),
}


@pytest.mark.parametrize("source", RESNETS)
def test_resnets(source, tmp_path):
    """Through init_cfg, as in a config."""
    given, (name, head) = randomise(resnet()).state_dict(), RESNETS[source]
    file = tmp_path / "weights.pth"
    torch.save({name(key): value for key, value in given.items()} | {head: torch.ones(3)}, file)
    init_cfg = dict(type="Pretrained", checkpoint=str(file))
    backbone = resnet(num_stages=3, out_indices=(2,), strides=(1, 2, 2), dilations=(1,) * 3,
                      init_cfg=init_cfg)  # fmt: skip
    load_local_weights(backbone)
    backbone.init_weights()  # does not change it
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, given[key]), key


def microsoft():
    """Random state dict of a Swin in the official code's form."""
    names = [
        ("stages", "layers"),
        ("attn.w_msa", "attn"),
        ("ffn.layers.0.0", "mlp.fc1"),
        ("ffn.layers.1", "mlp.fc2"),
        ("patch_embed.projection", "patch_embed.proj"),
    ]
    weights = {}
    for key, value in randomise(swin()).state_dict().items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        if not re.match(r"norm\d", key):
            weights[key] = value
    return weights | {"norm.weight": torch.ones(16), "head.weight": torch.ones(3, 16)}


def timm(weights):
    """Since 0.9 a stage includes the merging before it."""
    moved = {key.replace("layers.0.down", "layers.1.down"): key for key in weights}
    return {name: weights[key] for name, key in moved.items()}


def torchvision(weights):
    named = {}
    for key, value in weights.items():
        key = key.replace("patch_embed.proj", "features.0.0").replace(
            "patch_embed.norm", "features.0.2"
        )
        key = re.sub(r"layers\.(\d)\.blocks", lambda m: f"features.{2 * int(m[1]) + 1}", key)
        key = re.sub(r"layers\.(\d)\.downsample", lambda m: f"features.{2 * int(m[1]) + 2}", key)
        named[key.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = value
    return named


def hugging_face(
    weights, names=HF_SWIN, parts="attention.self.{}.", which=("query", "key", "value")
):
    named = {}
    for key, value in weights.items():
        if key in ("norm.weight", "head.weight"):
            key = {"norm.weight": "swin.layernorm.weight", "head.weight": "classifier.weight"}[key]
        for theirs, new in names.items():
            key = key.replace(theirs, new, 1)
        if ".qkv." in key:
            for part, rows in zip(which, value.chunk(3), strict=True):
                named[key.replace("attention.self.qkv.", parts.format(part))] = rows
        else:
            named[key] = value
    return named


def hugging_face_5(weights):
    return hugging_face(weights, HF_SWIN_5, "attention.{}.", ("q_proj", "k_proj", "v_proj"))


@pytest.mark.parametrize("source", [dict, timm, torchvision, hugging_face, hugging_face_5])
def test_swins(source, tmp_path):
    """The result equals mmdet's own convert_weights of the official file."""
    weights = microsoft()
    expected = swin_converter(dict(weights))
    file = tmp_path / "weights.safetensors"
    file.write_bytes(safetensors.torch.save(source(weights)))
    backbone = swin(init_cfg=dict(type="Pretrained", checkpoint=str(file)))
    load_local_weights(backbone)
    for key, value in backbone.state_dict().items():
        if not re.match(r"norm\d", key):
            assert torch.equal(value, expected[f"backbone.{key}"]), key
    file.write_bytes(
        safetensors.torch.save({f"backbone.{k}": v for k, v in backbone.state_dict().items()})
    )
    again = swin(init_cfg=dict(type="Pretrained", checkpoint=str(file)))
    load_local_weights(again)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in backbone.state_dict().items())


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
        (_BLOCK, lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}."),
        (r"downsample_layers\.(\d)", lambda m: f"features.{2 * int(m[1])}"),
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
    named = {"head.fc.weight" if source == "timm" else "classifier.2.weight": torch.ones(5, 4)}
    for key, value in given.items():
        for pattern, new in [] if key.startswith("norm1") else CONVNEXTS[source]:
            key = re.sub(pattern, new, key, count=1)
        turned = "pointwise_conv1" in key or "fc1" in key or "layer_scale" in key
        named[key] = value.unsqueeze(-1).unsqueeze(-1) if turned else value
    named = {key: value for key, value in named.items() if not key.startswith("norm1")}
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
    """Without patching mmengine or mmdet."""
    name = "conditional_detr/conditional-detr_r50_8xb2-50e_coco"
    given = {
        hugging_face_resnet(k): v for k, v in small_detector(name).backbone.state_dict().items()
    }
    torch.save(given, tmp_path / "it.pth")
    model = small_detector(name, 1)
    model.backbone.init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "it.pth"))
    model.init_weights()
    assert all(torch.equal(value, given[hugging_face_resnet(key)])
               for key, value in model.backbone.state_dict().items())  # fmt: skip
    for cls in (PretrainedInit, ResNet, SwinTransformer, BaseModule):
        own = [value.__module__ for value in vars(cls).values() if callable(value)]
        assert all(module.startswith(("mmdet", "mmengine", "torch")) for module in own), cls


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
         ["10 weights are missing", "layer4.1", "torchvision"]),
        (lambda w: w | {"layer2.2.bn1.bias": torch.ones(1)}, ["1 are too many", "layer2.2.bn1"]),
        (lambda w: w | {"conv1.weight": torch.ones(64, 3, 7, 7)},
         ["1 have other shapes", "64, 3, 7, 7", "8, 3, 7, 7"]),
    ],
)  # fmt: skip
def test_weights_of_another_backbone(change, named, tmp_path):
    torch.save(change(resnet().state_dict()), tmp_path / "it.pth")
    backbone = resnet(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "it.pth")))
    with pytest.raises(CheckpointError) as error:
        load_local_weights(backbone)
    assert [word for word in ["it.pth", *named] if word not in str(error.value)] == []


def test_a_broken_file(tmp_path):
    (tmp_path / "it.pth").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"it.pth is not a file of torch.save"):
        load_backbone(resnet(), tmp_path / "it.pth")


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
