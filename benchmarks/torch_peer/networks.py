"""The networks as a PyTorch user has them: torchvision's where it has one, else plain torch, channels first.

Those written here have the names of the zoo's modules, so that their arrays are found. What the zoo's networks do not
have, the second bias of nn.LSTM and the scales of I3D's normalisations, is there and stays as it is.
"""

import itertools
import math

import torch
import torchvision
from torch import nn
from torch.nn import functional


class CnnLstm(nn.Module):
    """Frames `[B, T, C, H, W]`, each through a CNN without its classifier, then through an LSTM."""

    layout = torch.channels_last

    def __init__(self, frame_cnn, features, hidden_features=512, num_classes=400):
        super().__init__()
        self.frame_cnn = frame_cnn
        self.lstm = nn.LSTM(features, hidden_features, batch_first=True)
        nn.init.zeros_(self.lstm.bias_ih_l0).requires_grad_(False)
        self.head = nn.Linear(hidden_features, num_classes)

    def forward(self, x):
        frames = self.frame_cnn(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.head(self.lstm(frames)[0][:, -1])


def resnet18_lstm():
    cnn = torchvision.models.resnet18()
    cnn.fc = nn.Identity()
    return CnnLstm(cnn, 512)


def mobilenet_v2_lstm():
    cnn = torchvision.models.mobilenet_v2()
    cnn.classifier = nn.Identity()
    return CnnLstm(cnn, 1280)


def video_resnet(make):
    network = make(num_classes=400)
    network.layout = torch.channels_last_3d
    return network


def same_padding(size, window, stride):
    """TensorFlow's: as much as gives ceil(size / stride) results, the odd one at the end."""
    total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def padded(x, window, strides):
    """x and the padding that is left to the operation itself: uneven ends are padded here."""
    pairs = [same_padding(*sizes) for sizes in zip(x.shape[2:], window, strides, strict=True)]
    if all(low == high for low, high in pairs):
        return x, [low for low, _ in pairs]
    return functional.pad(x, list(itertools.chain(*reversed(pairs)))), 0


def max_pool(x, window, strides):
    """With SAME padding, of values that are not negative."""
    pairs = [same_padding(*sizes) for sizes in zip(x.shape[2:], window, strides, strict=True)]
    if all(low == 0 for low, _ in pairs):
        return functional.max_pool3d(x, window, strides, ceil_mode=True)
    x, padding = padded(x, window, strides)
    return functional.max_pool3d(x, window, strides, padding)


class Unit(nn.Module):
    def __init__(self, in_features, features, window, stride=1):
        super().__init__()
        self.window, self.strides = (window,) * 3, (stride,) * 3
        self.conv = nn.Conv3d(in_features, features, window, stride, bias=False)
        self.norm = nn.BatchNorm3d(features, eps=1e-3, momentum=0.01)
        self.norm.weight.requires_grad_(False)

    def forward(self, x):
        x, padding = padded(x, self.window, self.strides)
        return functional.relu(self.norm(functional.conv3d(x, self.conv.weight, None, self.strides, padding)))


class Inception(nn.Module):
    def __init__(self, before, widths):
        super().__init__()
        self.branch_0 = Unit(before, widths[0], 1)
        self.branch_1a, self.branch_1b = Unit(before, widths[1], 1), Unit(widths[1], widths[2], 3)
        self.branch_2a, self.branch_2b = Unit(before, widths[3], 1), Unit(widths[3], widths[4], 3)
        self.branch_3 = Unit(before, widths[5], 1)

    def forward(self, x):
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        branches = self.branch_0(x), self.branch_1b(self.branch_1a(x)), self.branch_2b(self.branch_2a(x))
        return torch.cat([*branches, self.branch_3(pooled)], 1)


class I3D(nn.Module):
    layout = torch.channels_last_3d
    blocks = {  # noqa: RUF012, a constant
        "mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
        "mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
        "mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
        "mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
        "mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
        "mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
        "mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
        "mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
        "mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
    }

    def __init__(self):
        super().__init__()
        self.conv_1a, self.conv_2b, self.conv_2c = Unit(3, 64, 7, 2), Unit(64, 64, 1), Unit(64, 192, 3)
        for name, sizes in self.blocks.items():
            setattr(self, name, Inception(*sizes))
        self.logits = nn.Conv3d(1024, 400, 1)

    def forward(self, x):
        x = max_pool(self.conv_1a(x), (1, 3, 3), (1, 2, 2))
        x = max_pool(self.conv_2c(self.conv_2b(x)), (1, 3, 3), (1, 2, 2))
        for name in self.blocks:
            if name == "mixed_4b":
                x = max_pool(x, (3, 3, 3), (2, 2, 2))
            elif name == "mixed_5b":
                x = max_pool(x, (2, 2, 2), (2, 2, 2))
            x = getattr(self, name)(x)
        return self.logits(functional.avg_pool3d(x, (2, 7, 7), 1)).mean((2, 3, 4))


class ConvLSTM(nn.Module):
    """`[B, T, C, H, W]` to the hidden states of all steps."""

    layout = torch.channels_last

    def __init__(self, channels=64, features=64):
        super().__init__()
        self.conv = nn.Conv2d(channels + features, 4 * features, 3, padding=1)

    def forward(self, x):
        hidden = cell = torch.zeros_like(x[:, 0])
        outputs = []
        for step in range(x.shape[1]):
            gates = self.conv(torch.cat([x[:, step], hidden], 1))
            i, f, g, o = gates.chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs, 1)


def sinusoids(position, features, longest):
    frequencies = 2 * math.pi / longest ** torch.linspace(0.2, 1, features // 2)
    angle = position[..., None] * frequencies
    return torch.cat([angle.sin(), angle.cos()], -1)


class ChannelNorm(nn.Module):
    """RMS normalisation over the channels of `[B, C, T, H, W]`."""

    def __init__(self, features):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * self.weight[:, None, None, None]


class Modulation(nn.Module):
    def __init__(self, features, condition):
        super().__init__()
        self.norm, self.project = ChannelNorm(features), nn.Linear(condition, 2 * features)

    def forward(self, x, condition):
        scale, shift = self.project(condition)[:, :, None, None, None].chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


class ConvBlock(nn.Module):
    def __init__(self, in_features, features, condition):
        super().__init__()
        self.first, self.second = Modulation(in_features, condition), Modulation(features, condition)
        self.conv_in = nn.Conv3d(in_features, features, (1, 3, 3), padding=(0, 1, 1))
        self.conv_out = nn.Conv3d(features, features, (3, 1, 1), padding=(1, 0, 0))
        self.shortcut = nn.Conv3d(in_features, features, 1) if in_features != features else nn.Identity()

    def forward(self, x, condition):
        y = self.conv_in(functional.silu(self.first(x, condition)))
        return self.shortcut(x) + self.conv_out(functional.silu(self.second(y, condition)))


class Attention(nn.Module):
    def __init__(self, features, head_features):
        super().__init__()
        self.head_features = head_features
        self.to_query_key_value = nn.Linear(features, 3 * features, bias=False)
        self.query_norm = nn.RMSNorm(head_features, eps=1e-6)
        self.key_norm = nn.RMSNorm(head_features, eps=1e-6)
        self.out = nn.Linear(features, features)

    def forward(self, x):
        heads = self.to_query_key_value(x).unflatten(-1, (3, -1, self.head_features))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(self.query_norm(query), self.key_norm(key), value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class AttentionBlock(nn.Module):
    def __init__(self, features, condition):
        super().__init__()
        self.first, self.second = Modulation(features, condition), Modulation(features, condition)
        self.attention = Attention(features, 32)
        self.expand, self.contract = nn.Linear(features, 3 * features), nn.Linear(3 * features, features)

    def forward(self, x, condition):
        c, t, h, w = x.shape[1:]
        place = torch.stack(torch.meshgrid(*map(torch.arange, (t, h, w)), indexing="ij"), -1).float()
        share = c // 6 * 2
        place = functional.pad(sinusoids(place, share, 64.0).flatten(-2), (0, c - 3 * share))
        y = self.first(x, condition) + place.permute(3, 0, 1, 2)
        tokens = self.attention(y.flatten(2).transpose(1, 2))
        x = x + tokens.transpose(1, 2).unflatten(2, (t, h, w))
        y = self.second(x, condition).movedim(1, -1)
        return x + self.contract(functional.silu(self.expand(y))).movedim(-1, 1)


class VideoGen(nn.Module):
    """The flow-matching generator's U-Net, `[B, C, T, H, W]`, with the zoo's defaults."""

    layout = torch.channels_last_3d

    def __init__(self, channels=1, num_classes=10, patch=4, widths=(128, 224)):
        super().__init__()
        self.patch = patch
        condition = widths[-1]
        self.time_in, self.time_out = nn.Linear(64, condition), nn.Linear(condition, condition)
        self.class_in = nn.Linear(num_classes, condition, bias=False)
        self.stem = nn.Conv3d(channels * patch**2, widths[0], (1, 3, 3), padding=(0, 1, 1))
        self.down, self.merge, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, features in enumerate(widths):
            below = widths[max(level - 1, 0)]
            coarsest = level == len(widths) - 1
            mixing = [AttentionBlock(features, condition) for _ in range(2)] if coarsest else []
            self.down.append(nn.ModuleList([ConvBlock(below, features, condition), *mixing[:1]]))
            self.merge.append(nn.Conv3d(2 * features, features, 1))
            self.up.append(nn.ModuleList([*mixing[1:], ConvBlock(features, below, condition)]))
        self.last = Modulation(widths[0], condition)
        self.head = nn.Conv3d(widths[0], channels * patch**2, (1, 3, 3), padding=(0, 1, 1))
        self.known_in = nn.Linear(1, widths[0], bias=False)

    def forward(self, x, time, classes, known):
        condition = self.time_out(functional.silu(self.time_in(sinusoids(time * 1000, 64, 10_000.0))))
        condition = functional.silu(condition + self.class_in(classes))
        b, c, t, h, w = x.shape
        p = self.patch
        x = x.reshape(b, c, t, h // p, p, w // p, p).permute(0, 4, 6, 1, 2, 3, 5).flatten(1, 3)
        x = self.stem(x) + self.known_in(known[..., None]).movedim(-1, 1)[..., None, None]
        kept = []
        for level, blocks in enumerate(self.down):
            if level > 0:
                x = functional.avg_pool3d(x, (1, 2, 2))
            for block in blocks:
                x = block(x, condition)
            kept.append(x)
        for level in reversed(range(len(kept))):
            x = self.merge[level](torch.cat([x, kept[level]], 1))
            for block in self.up[level]:
                x = block(x, condition)
            if level > 0:
                x = functional.interpolate(x, scale_factor=(1, 2, 2))
        x = self.head(functional.silu(self.last(x, condition)))
        return x.unflatten(1, (p, p, c)).permute(0, 3, 4, 5, 1, 6, 2).reshape(b, c, t, h, w)


NETWORKS = {
    "mobilenet_v2_lstm": mobilenet_v2_lstm,
    "resnet18_lstm": resnet18_lstm,
    "r3d_18": lambda: video_resnet(torchvision.models.video.r3d_18),
    "r2plus1d_18": lambda: video_resnet(torchvision.models.video.r2plus1d_18),
    "i3d": I3D,
    "conv_lstm": ConvLSTM,
    "video_gen": VideoGen,
}


def channels_first(x, layout):
    """A video `[B, T, H, W, C]` as its network has it: `[B, T, C, H, W]` if it sees frames, else `[B, C, T, H, W]`."""
    return x.movedim(-1, 2 if layout is torch.channels_last else 1).contiguous() if x.dim() == 5 else x


def channels_behind(x, layout):
    """The other way."""
    return x.movedim(2 if layout is torch.channels_last else 1, -1) if x.dim() == 5 else x


def in_layout(x, layout):
    """The same video with its memory in this layout, what are frames to the network frame by frame."""
    if x.dim() < 5:
        return x
    if layout is torch.channels_last:
        return x.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, x.shape[:2])
    return x.contiguous(memory_format=layout)
