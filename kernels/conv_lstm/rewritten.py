"""The plain ConvLSTM, whose convolutions are each computed in the way that is best where they run."""

from functools import partial

from .. import reference
from ..conv import conv

conv_lstm = partial(reference.conv_lstm, convolve=conv)
conv_lstm_stack = partial(reference.conv_lstm_stack, convolve=conv)
