"""Convolution, pooling and ConvLSTM for video, called like `jax.nn`.

Arrays are channels-last; the rank of the kernel or window tells how many axes are spatial (1, 2 or 3) and every axis
before them is batch. Padding is "SAME", "VALID" or (low, high) pairs as in `jax.lax`. `implementation=None` takes what
was measured to be best for the platform, dtype and shape; a name, or a list of names in order of preference, asks for
"xla", "rewritten" (plain JAX in another form), "pallas_tpu" or "pallas_gpu", and fails with all their reasons if none
of them serves the call.

Everything has gradients. Forward mode (jvp, jacfwd, hessian) is plain lax's alone, and second derivatives are not the
kernels': ask for `implementation="xla"`, or for a whole model trace it within `prefer("xla")`.
"""

from . import conv as _conv
from . import conv_lstm as _conv_lstm
from . import depthwise as _depthwise
from . import pool as _pool
from .arguments import Padding
from .dispatch import forward_mode_is_refused, prefer
from .over_batch import batches_over

_explained = forward_mode_is_refused()
conv = _explained(_conv.conv)
conv_transpose = _explained(_conv.conv_transpose)
conv_bias_act_pool = _explained(_conv.conv_bias_act_pool)
conv_lstm = _explained(_conv_lstm.conv_lstm)
conv_lstm_stack = _explained(_conv_lstm.conv_lstm_stack)
depthwise_conv = _explained(_depthwise.depthwise_conv)
avg_pool = _explained(_pool.avg_pool)
max_pool = _explained(_pool.max_pool)

__all__ = [
    "Padding",
    "avg_pool",
    "batches_over",
    "conv",
    "conv_bias_act_pool",
    "conv_lstm",
    "conv_lstm_stack",
    "conv_transpose",
    "depthwise_conv",
    "max_pool",
    "prefer",
]
