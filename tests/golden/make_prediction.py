"""Networks that predict frames, in PyTorch, written for this from the papers: they know nothing of the zoo.

    python tests/golden/make_prediction.py

Runs with PyTorch 2.14 and writes prediction.npz beside this script, all in float64: `learning`, a small ConvLSTM's loss
over 200 steps of Adam under scheduled sampling, and what a ConvLSTM, a PredRNN++, a SimVP and a TAU predict. The tests
take shapes, weights and batches from here; those need NumPy alone.
"""

from pathlib import Path

import numpy as np

STEPS, RATE = 200, 3e-3
CONTEXT, FRAMES, SIDE, PATCH, FEATURES = 3, 6, 8, 2, 4
HORIZONS = {"convlstm": 4, "predrnn_pp": 4, "simvp": 7, "tau": 7}
OPTIONS = {
    "convlstm": {"patch": PATCH, "widths": (FEATURES, FEATURES), "kernel_size": 3},
    "predrnn_pp": {"patch": PATCH, "features": FEATURES, "num_layers": 3, "kernel_size": 3},
    "simvp": {
        "frames": 3,
        "spatial_features": 4,
        "temporal_features": 8,
        "num_blocks": 3,
        "halvings": 1,
        "mlp_ratio": 2,
    },
}
OPTIONS["tau"] = OPTIONS["simvp"]


def shapes(network):
    """The arrays of a network, by name: kernels [height, width, in, out], matrices [in, out], and vectors."""
    pixels, wide = PATCH**2, FEATURES
    if network == "convlstm":
        table = {"head.kernel": (1, 1, wide, pixels), "head.bias": (pixels,)}
        for number, below in enumerate((pixels, wide)):
            table[f"layers.{number}.kernel"] = (3, 3, below + wide, 4 * wide)
            table[f"layers.{number}.bias"] = (4 * wide,)
        return table
    if network == "predrnn_pp":
        table = {"head.kernel": (1, 1, wide, pixels)}
        for number, below in enumerate((pixels, wide, wide)):
            counts = {"input": 7, "hidden": 4, "cell": 3, "memory": 3, "new_cell": 4, "new_memory": 1}
            for name, count in counts.items():
                inside = below if name == "input" else wide
                table[f"layers.{number}.of_{name}.kernel"] = (3, 3, inside, count * wide)
            table[f"layers.{number}.mix.kernel"] = (1, 1, 2 * wide, wide)
        return table | {f"highway.of_{name}.kernel": (3, 3, wide, 2 * wide) for name in ("input", "highway")}
    table = {"head.kernel": (4, 1), "head.bias": (1,)}
    for part, inside, outside in (("encoder.0", 1, 4), ("encoder.1", 4, 4), ("decoder.0", 4, 16), ("decoder.1", 4, 4)):
        table |= {f"{part}.conv.kernel": (3, 3, inside, outside), f"{part}.conv.bias": (outside,)}
        table |= {f"{part}.norm.scale": (4,), f"{part}.norm.bias": (4,)}
    for number, (width, behind) in enumerate(((12, 8), (8, 8), (8, 12))):
        block = f"translator.{number}"
        for norm in ("attention_norm", "mlp_norm"):
            table |= {f"{block}.{norm}.{name}": (width,) for name in ("scale", "bias", "mean", "var")}
        dense = {"before": (width, width), "behind": (width, width)}
        dense |= {"expand": (width, 2 * width), "contract": (2 * width, width)}
        dense |= {"reduce": (width, behind)} if width != behind else {}
        dense |= {"attention.value_and_gate": (width, 2 * width)} if network == "simvp" else {}
        dense |= {"attention.value": (width, width)} if network == "tau" else {}
        for name, shape in dense.items():
            table |= {f"{block}.{name}.kernel": shape, f"{block}.{name}.bias": shape[-1:]}
        for name, side, of in (
            ("attention.window.near", 5, width),
            ("attention.window.far", 7, width),
            ("window", 3, 2 * width),
        ):
            table |= {f"{block}.{name}.conv.kernel": (side, side, 1, of), f"{block}.{name}.bias": (of,)}
        table |= {f"{block}.attention_scale": (width,), f"{block}.mlp_scale": (width,)}
        if network == "tau":
            squeezed = width // 4
            table |= {f"{block}.attention.squeeze.kernel": (width, squeezed)}
            table |= {f"{block}.attention.excite.kernel": (squeezed, width)}
    return table


def weights(network):
    """Arrays of those shapes, so large that the prediction hangs on all of them; variances and scales are around 1."""
    draw, drawn = np.random.RandomState(len(network)), {}
    size = 3 if network == "predrnn_pp" else 1
    for name, shape in shapes(network).items():
        inside = np.prod(shape[:-1]) if len(shape) > 1 else 25
        drawn[name] = size * draw.normal(size=shape) / np.sqrt(inside)
        if name.endswith(("scale", "var")):
            drawn[name] = np.exp(drawn[name])
    return drawn


def videos(count):
    """`count` batches of two videos [2, FRAMES, SIDE, SIDE, 1] in [0, 1]: a soft blot that moves."""
    draw = np.random.RandomState(1506_0421)
    y, x = np.mgrid[:SIDE, :SIDE]
    for _ in range(count):
        start, velocity = draw.uniform(2, 6, (2, 1, 2)), draw.uniform(-1, 1, (2, 1, 2))
        places = (start + velocity * np.arange(FRAMES)[None, :, None])[..., None, None]
        yield np.exp(-((y - places[:, :, 0]) ** 2 + (x - places[:, :, 1]) ** 2) / 3)[..., None]


def given(count):
    """`count` tables [2, FRAMES - CONTEXT - 1]: where a true frame takes the place of the network's own, ever fewer."""
    draw = np.random.RandomState(1506_0309)
    for step in range(count):
        yield draw.uniform(size=(2, FRAMES - CONTEXT - 1)) < 1 - 2 * step / count


def main():
    import torch
    import torch.nn.functional as F
    from torch import sigmoid, tanh

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # so small arrays are not worth two

    def conv(x, kernel, bias=None, **options):
        """x [B, C, H, W]; a kernel of odd sides, padded to keep the size."""
        kernel = kernel.permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, bias, padding=options.pop("padding", kernel.shape[-1] // 2), **options)

    def dense(x, w, name):
        return conv(x, w[f"{name}.kernel"][None, None], w.get(f"{name}.bias"))

    def cut(frames):  # [B, T, H, W, 1] to a list of T [B, PATCH * PATCH, h, w]
        return [F.pixel_unshuffle(frame, PATCH) for frame in frames.permute(1, 0, 4, 2, 3)]

    def joined(patches):
        return torch.stack([F.pixel_shuffle(patch, PATCH) for patch in patches], 1).permute(0, 1, 3, 4, 2)

    def convlstm_step(w, x, state):
        after = []
        for number, (hidden, cell) in enumerate(state):
            gates = conv(torch.cat([x, hidden], 1), w[f"layers.{number}.kernel"], w[f"layers.{number}.bias"])
            enter, forget, new, leave = gates.chunk(4, 1)
            cell = sigmoid(forget) * cell + sigmoid(enter) * tanh(new)
            x = sigmoid(leave) * tanh(cell)
            after.append((x, cell))
        return conv(x, w["head.kernel"], w["head.bias"]), after

    def predrnn_step(w, x, state):
        layers, memory, highway = state
        after = []
        for number, (hidden, cell) in enumerate(layers):
            of = {name: w[f"layers.{number}.of_{name}.kernel"] for name in ("input", "hidden", "cell", "memory")}
            ix, fx, gx, im, fm, gm, ox = conv(x, of["input"]).chunk(7, 1)
            ih, fh, gh, oh = conv(hidden, of["hidden"]).chunk(4, 1)
            ic, fc, gc = conv(cell, of["cell"]).chunk(3, 1)
            cell = sigmoid(fx + fh + fc + 1) * cell + sigmoid(ix + ih + ic) * tanh(gx + gh + gc)
            i2, f2, g2, o2 = conv(cell, w[f"layers.{number}.of_new_cell.kernel"]).chunk(4, 1)
            i3, f3, m3 = conv(memory, of["memory"]).chunk(3, 1)
            memory = sigmoid(fm + f3 + f2 + 1) * tanh(m3) + sigmoid(im + i3 + i2) * tanh(gm + g2)
            out = tanh(ox + oh + o2 + conv(memory, w[f"layers.{number}.of_new_memory.kernel"]))
            hidden = out * tanh(conv(torch.cat([cell, memory], 1), w[f"layers.{number}.mix.kernel"]))
            after.append((hidden, cell))
            x = hidden
            if number == 0:
                both = conv(x, w["highway.of_input.kernel"]) + conv(highway, w["highway.of_highway.kernel"])
                new, switch = both.chunk(2, 1)
                x = highway = sigmoid(switch) * tanh(new) + (1 - sigmoid(switch)) * highway
        return conv(x, w["head.kernel"]), (after, memory, highway)

    def follow(step, w, state, video, context, table):
        """What comes after each frame but the last, in a loop over them; as in Bengio et al. 2015."""
        told = []
        for time, patch in enumerate(cut(video)[:-1]):
            if time >= context:
                patch = torch.where(table[:, time - context, None, None, None], patch, told[-1])
            own, state = step(w, patch, state)
            told.append(own)
        return joined(told)

    zero = torch.zeros(2, FEATURES, SIDE // PATCH, SIDE // PATCH)
    starts = {"convlstm": [(zero, zero)] * 2, "predrnn_pp": ([(zero, zero)] * 3, zero, zero)}
    step_of = {"convlstm": convlstm_step, "predrnn_pp": predrnn_step}

    def ahead(name, video, horizon):
        w = {key: torch.tensor(value) for key, value in weights(name).items()}
        if name in step_of:
            whole = torch.cat([video, torch.zeros(2, horizon, SIDE, SIDE, 1)], 1)
            table = torch.zeros(2, horizon - 1, dtype=torch.bool)
            return follow(step_of[name], w, starts[name], whole, video.shape[1], table)[:, -horizon:]
        windows = []
        while sum(window.shape[1] for window in windows) < horizon:
            windows.append(simvp_window(w, (windows or [video[:, -3:]])[-1], name))
        return torch.cat(windows, 1)[:, :horizon]

    def unit(x, w, name, stride=1, doubles=False):
        x = conv(x, w[f"{name}.conv.kernel"], w[f"{name}.conv.bias"], stride=stride, padding=1)
        # The zoo has the four pixels of a feature in the order of rows, columns, features; PyTorch features first.
        if doubles:
            x = F.pixel_shuffle(x.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2), 2)
        return F.silu(F.group_norm(x, 2, w[f"{name}.norm.scale"], w[f"{name}.norm.bias"], eps=1e-5))

    def depthwise(x, w, name, dilation=1):
        kernel = w[f"{name}.conv.kernel"]
        padding = dilation * (kernel.shape[0] // 2)
        options = {"groups": x.shape[1], "dilation": dilation, "padding": padding}
        return conv(x, kernel, w[f"{name}.bias"], **options)

    def block(x, w, name, kind):
        def norm(x, which):
            mean, var, scale, bias = (w[f"{name}.{which}.{part}"] for part in ("mean", "var", "scale", "bias"))
            return F.batch_norm(x, mean, var, scale, bias, eps=1e-5)

        seen = norm(x, "attention_norm")
        y = F.gelu(dense(seen, w, f"{name}.before"))
        wide = depthwise(depthwise(y, w, f"{name}.attention.window.near"), w, f"{name}.attention.window.far", 3)
        if kind == "simvp":
            value, gate = dense(wide, w, f"{name}.attention.value_and_gate").chunk(2, 1)
            y = sigmoid(gate) * value
        else:
            whole = F.adaptive_avg_pool2d(y, 1)
            squeezed = F.relu(dense(whole, w, f"{name}.attention.squeeze"))
            y = sigmoid(dense(squeezed, w, f"{name}.attention.excite")) * dense(wide, w, f"{name}.attention.value") * y
        x = x + w[f"{name}.attention_scale"][:, None, None] * (seen + dense(y, w, f"{name}.behind"))
        y = depthwise(dense(norm(x, "mlp_norm"), w, f"{name}.expand"), w, f"{name}.window")
        x = x + w[f"{name}.mlp_scale"][:, None, None] * dense(F.gelu(y), w, f"{name}.contract")
        return dense(x, w, f"{name}.reduce") if f"{name}.reduce.kernel" in w else x

    def simvp_window(w, video, kind):
        frames = video.permute(0, 1, 4, 2, 3).flatten(0, 1)
        first = unit(frames, w, "encoder.0")
        x = unit(first, w, "encoder.1", stride=2).unflatten(0, (2, 3)).flatten(1, 2)
        for number in range(3):
            x = block(x, w, f"translator.{number}", kind)
        x = unit(x.unflatten(1, (3, 4)).flatten(0, 1), w, "decoder.0", doubles=True)
        x = dense(unit(x + first, w, "decoder.1"), w, "head")
        return x.unflatten(0, (2, 3)).permute(0, 1, 3, 4, 2)

    results = {}
    for name, horizon in HORIZONS.items():
        results[name] = ahead(name, torch.tensor(next(videos(1))), horizon).numpy()
        print(name, results[name].shape, results[name].std().round(3))

    learnt = {key: torch.tensor(value, requires_grad=True) for key, value in weights("convlstm").items()}
    adam, losses = torch.optim.Adam(learnt.values(), RATE), []
    for video, table in zip(videos(STEPS), given(STEPS), strict=True):
        video = torch.tensor(video)
        told = follow(convlstm_step, learnt, starts["convlstm"], video, CONTEXT, torch.tensor(table))
        loss = F.mse_loss(told, video[:, 1:])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    results["learning"] = np.array(losses)
    print("learning", losses[0], losses[99], losses[-1])
    np.savez_compressed(Path(__file__).with_name("prediction.npz"), **results)


if __name__ == "__main__":
    main()
