"""Convolution, pooling and ConvLSTM for video, called like `jax.nn`.

Arrays are channels-last; the rank of the kernel or window tells how many axes are spatial (1, 2 or 3) and every axis
before them is batch. Padding is "SAME", "VALID" or (low, high) pairs as in `jax.lax`. `implementation=None` takes what
was measured to be best for the platform, dtype and shape; a name, or a list of names in order of preference, asks for
"xla", "rewritten" (plain JAX in another form), "pallas_tpu" or "pallas_gpu", and fails with all their reasons if none
of them serves the call. Everything has gradients; only plain lax has second derivatives and forward mode.
"""

from .arguments import Padding
from .conv import conv, conv_bias_act_pool, conv_transpose
from .conv_lstm import conv_lstm, conv_lstm_stack
from .depthwise import depthwise_conv
from .pool import avg_pool, max_pool

__all__ = [
    "Padding",
    "avg_pool",
    "conv",
    "conv_bias_act_pool",
    "conv_lstm",
    "conv_lstm_stack",
    "conv_transpose",
    "depthwise_conv",
    "max_pool",
]
