"""What PyTorch runs: a network's inference or its training step, eager or compiled, in either layout."""

import networks
import numpy as np
import serving
import torch
import torch._dynamo
import torch._inductor.config
from torch._dynamo.utils import counters
from torch._inductor import metrics
from torch._inductor.compile_fx import compile_fx

# A graph that breaks, a compiler that fails or a program compiled too often has to be an error, never a slow success.
torch._dynamo.config.suppress_errors = False
torch._dynamo.config.fail_on_recompile_limit_hit = True
# Without it nn.LSTM is a graph break.
torch._dynamo.config.allow_rnn = True

loaded = {}


def shapes(model):
    """Names and shapes of the arrays that both sides have; parameters that stay as they are made are not among them."""
    return {name: list(tensor.shape) for name, tensor in _shared(networks.NETWORKS[model]()).items()}


def _shared(network):
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    state = network.state_dict(keep_vars=True)
    return {name: t for name, t in state.items() if name not in frozen and not name.endswith("num_batches_tracked")}


def load(form, model, training, rate, weights, inputs, result, compiled, channels_last):
    """Makes a program ready as `form`, and keeps what its first call gives in the file `result`.

    That is the network's output, or the loss and the arrays after the step. Every file is an .npz.
    """
    network = networks.NETWORKS[model]()
    with np.load(weights) as arrays, torch.no_grad():
        for name, tensor in _shared(network).items():
            tensor.copy_(torch.from_numpy(arrays[name]))
    with np.load(inputs) as arrays:
        operands = [torch.from_numpy(arrays[name]) for name in sorted(arrays) if name != "labels"]
        labels = torch.from_numpy(arrays["labels"]) if "labels" in arrays else None
    operands = [networks.channels_first(x, network.layout) for x in operands]
    if channels_last:
        network = network.to(memory_format=network.layout)
        operands = [networks.in_layout(x, network.layout) for x in operands]
    graphs = []

    def counted(graph, examples):
        graphs.append(graph)
        return compile_fx(graph, examples)

    def optimised(function):
        return torch.compile(function, backend=counted, fullgraph=True, dynamic=False) if compiled else function

    # No torch._dynamo.reset(): it would take their compiled code from the forms that are loaded already.
    counters.clear()
    metrics.reset()
    call = _step(network, operands, labels, rate, optimised) if training else _inference(network, operands, optimised)
    kept = {}

    def first():
        out = call()
        if not kept:
            kept["loss" if training else "output"] = np.array(networks.channels_behind(out.detach(), network.layout))
            if training:
                kept.update({name: np.array(tensor.detach()) for name, tensor in _shared(network).items()})
        return out

    _, seconds = serving.first_and_next(first)
    if compiled:
        _check_compiled(graphs)
    np.savez(result, **kept)
    loaded[form] = call, compiled
    return {"compile_seconds": seconds}


def _check_compiled(graphs):
    breaks = dict(counters["graph_break"])
    if breaks:
        raise RuntimeError(f"the graph breaks: {next(iter(breaks))}")
    if len(graphs) != 1:
        raise RuntimeError(f"Dynamo handed over {len(graphs)} graphs, not one")
    if not metrics.generated_kernel_count and not metrics.ir_nodes_pre_fusion:
        raise RuntimeError("Inductor generated no code")


def _inference(network, operands, optimised):
    network.eval()
    function = optimised(network)

    def call():
        with torch.inference_mode():
            return function(*operands)

    return call


def _step(network, operands, labels, rate, optimised):
    """Forward, backward and an update by plain gradient descent."""
    network.train()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate, fused=True)

    @optimised
    def loss(*operands):
        out = network(*operands)
        return out.square().mean() if labels is None else torch.nn.functional.cross_entropy(out, labels)

    def call():
        optimizer.zero_grad(set_to_none=True)
        value = loss(*operands)
        value.backward()
        optimizer.step()
        return value

    return call


def turn(form, seconds):
    call, compiled = loaded[form]
    with torch.compiler.set_stance("fail_on_recompile" if compiled else "default"):
        return serving.turn(call, seconds)


def peak(size):
    left, right = torch.randn(size, size), torch.randn(size, size)
    return serving.peak(lambda: left @ right, size)
