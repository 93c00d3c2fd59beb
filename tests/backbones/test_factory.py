"""Every family gives features of the stated dimension, and is left as it was found."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from diet_lightning.backbones.factory import create_backbone
from diet_lightning.errors import ConfigurationError
from diet_lightning.objective import DatumHead

pytestmark = pytest.mark.slow

# name, side of the images, dimension as the family's own classifier states it (read off the definition, not the code)
FAMILIES = [
    ("resnet18", 16, 512),
    ("resnext50_32x4d", 65, 2048),
    ("wide_resnet50_2", 65, 2048),
    ("densenet121", 64, 1024),
    ("efficientnet_b0", 64, 1280),
    ("mobilenet_v2", 64, 1280),
    ("mobilenet_v3_small", 64, 1024),
    ("convnext_tiny", 64, 768),
    ("swin_t", 64, 768),
    ("vit_b_16", 32, 768),
    ("maxvit_t", 224, 512),
    ("vgg11", 32, 4096),
    ("alexnet", 64, 4096),
    ("regnet_y_400mf", 64, 440),
    ("shufflenet_v2_x0_5", 64, 1024),
    ("mnasnet0_5", 64, 1280),
    ("googlenet", 64, 1024),
    ("inception_v3", 96, 2048),
    ("squeezenet1_0", 64, 512),
    ("resnet8", 8, 128),
    ("resnet8_w16", 8, 64),
    ("resnet8_w64", 8, 256),
    ("timm/resnet10t", 32, 512),
    ("timm/vit_tiny_patch16_224", 32, 192),
]


@pytest.mark.parametrize(("name", "side", "dim"), FAMILIES)
def test_family_gives_features_and_a_falling_loss(name, side, dim):
    torch.manual_seed(0)
    backbone = create_backbone(name, (3, side, side))
    assert backbone.embed_dim == dim
    assert backbone.training
    batch = 2 if side > 100 else 4
    inputs, index = torch.randn(batch, 3, side, side), torch.arange(batch)
    head = DatumHead(batch, dim)
    parameters = dict([*backbone.named_parameters(), *head.named_parameters()])
    losses = []
    for _ in range(3):
        torch.manual_seed(1)  # the same dropout at every step, so that only the weights differ
        features = backbone(inputs)
        assert features.shape == (batch, dim)
        loss = head(features, index)
        losses.append(loss.item())
        # None would be a parameter that no longer reaches the loss
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        step = 0.02 * loss.item() / sum(g.square().sum() for g in gradients)  # lowers the loss by 2 % to first order
        with torch.no_grad():
            for parameter, gradient in zip(parameters.values(), gradients, strict=True):
                parameter -= step * gradient
    assert losses[2] < losses[1] < losses[0]


def test_small_stem_is_the_papers():
    model = create_backbone("resnet18", (3, 32, 32)).model
    first = model.conv1
    assert (first.kernel_size, first.stride, first.padding, first.bias) == ((3, 3), (1, 1), (2, 2), None)
    assert isinstance(model.maxpool, nn.Identity)
    assert isinstance(model.fc, nn.Identity)


def test_resnet8_draws_the_weights_that_its_layers_draw_in_turn():
    def block(inputs, outputs, stride):
        shortcut = None
        if stride > 1:
            shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        return BasicBlock(inputs, outputs, stride, shortcut)

    torch.manual_seed(3)
    first = nn.Conv2d(1, 32, 3, padding=1, bias=False)
    blocks = [block(32, 32, 1), block(32, 64, 2), block(64, 128, 2)]
    drawn = [p for part in (first, *blocks) for p in part.parameters() if p.ndim == 4]
    for name in ("resnet8", "resnet8_w32"):
        torch.manual_seed(3)
        ours = [p for p in create_backbone(name, (1, 8, 8)).parameters() if p.ndim == 4]
        assert len(ours) == 9  # 1 + 2 + 3 + 3 convolutions
        assert all(torch.equal(one, two) for one, two in zip(ours, drawn, strict=True)), name


def test_resnet8_has_the_width_of_its_name():
    model = create_backbone("resnet8_w16", (1, 8, 8)).model
    widths = [p.shape[0] for p in model.parameters() if p.ndim == 4 and p.shape[-1] == 3]
    assert widths == [16, 16, 16, 32, 32, 64, 64]


@pytest.mark.parametrize(
    ("stem", "side", "used"),
    [("auto", 64, "small"), ("auto", 65, "standard"), ("standard", 32, "standard"), ("small", 224, "small")],
)
def test_stem_is_chosen_by_size_unless_told(stem, side, used):
    assert create_backbone("resnet18", (3, side, side), stem).stem == used


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "timm/resnet10t", "resnet8", "vit_b_16"])
@pytest.mark.parametrize("channels", [1, 4])
def test_channels_follow_the_data(name, channels):
    backbone = create_backbone(name, (channels, 32, 32)).eval()
    assert backbone(torch.randn(2, channels, 32, 32)).shape == (2, backbone.embed_dim)


def test_finding_the_dimension_leaves_model_and_randomness_alone():
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network[1].eval()  # a user's frozen layer stays frozen
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    backbone = create_backbone(network, (3, 9, 7))
    assert torch.equal(state, torch.get_rng_state())
    assert backbone.embed_dim == 6
    assert network.training
    assert not network[1].training
    for name, value in network.state_dict().items():
        assert torch.equal(before[name], value), name


@pytest.mark.parametrize(
    "build", [lambda: models.resnet18(), lambda: models.googlenet(aux_logits=True, init_weights=False)]
)
def test_torchvision_module_loses_its_classifier(build):
    network = build()
    backbone = create_backbone(network, (3, 64, 64))
    assert backbone.embed_dim == network.fc(torch.zeros(1, backbone.embed_dim)).shape[1]
    assert isinstance(network.fc, nn.Identity)
    assert backbone(torch.randn(2, 3, 64, 64)).shape == (2, backbone.embed_dim)


def test_own_module_is_taken_whole_or_without_the_named_part():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(5, 7)
            self.top = nn.Linear(7, 3)

        def forward(self, x):
            return self.top(self.body(x))

    assert create_backbone(Net(), (5,)).embed_dim == 3
    assert create_backbone(Net(), (5,), classifier="top").embed_dim == 7
    with pytest.raises(ConfigurationError, match=r"'fc' names no submodule of Net: its parts are \['body', 'top'\]"):
        create_backbone(Net(), (5,), classifier="fc")


@pytest.mark.parametrize(
    ("backbone", "shape", "message"),
    [
        ("resnet19", (3, 32, 32), "Unknown backbone 'resnet19'"),
        ("resnet8_w0", (3, 32, 32), r"Unknown backbone .resnet8_w0.: .* 64 channels in its first block \(1 to 9999\)"),
        ("resnet8_w", (3, 32, 32), "Unknown backbone 'resnet8_w'"),
        ("resnet8_w16x", (3, 32, 32), "Unknown backbone 'resnet8_w16x'"),
        ("resnet8_w-4", (3, 32, 32), "Unknown backbone 'resnet8_w-4'"),
        ("timm/resnet19", (3, 32, 32), "Unknown backbone 'timm/resnet19'"),
        ("fcn_resnet50", (3, 32, 32), "Unknown backbone 'fcn_resnet50'"),
        ("vit_b_16", (3, 33, 33), "'vit_b_16' cannot .*33"),
        ("maxvit_t", (3, 64, 64), "'maxvit_t' cannot be built for images of 64×64"),
        ("inception_v3", (3, 32, 32), "'inception_v3' cannot read inputs of shape"),
        ("resnet18", (100,), "pass a module that reads such inputs"),
        (nn.Conv2d(3, 4, 3), (3, 8, 8), r"embeddings of shape \(batch, dimension\), but got \(2, 4, 6, 6\)"),
        (nn.Linear(5, 4), (3, 8, 8), "'Linear' cannot read inputs of shape"),
        (nn.LSTM(5, 4), (5,), "but got tuple"),
        (7, (3, 8, 8), "to be a name or a torch.nn.Module, but got 7"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused(backbone, shape, message):
    with pytest.raises(ConfigurationError, match=message):
        create_backbone(backbone, shape)


def test_stem_that_does_not_exist_is_refused():
    with pytest.raises(ConfigurationError, match=r"`stem` to be one of .* but got 'tiny'"):
        create_backbone("resnet18", stem="tiny")
    with pytest.raises(ConfigurationError, match="stem='small' is defined for ResNets, but got backbone='vgg11'"):
        create_backbone("vgg11", (3, 32, 32), "small")
