"""Which implementation of an operation runs. There is one so far: plain lax, called "xla"."""

from collections.abc import Callable

from . import reference

IMPLEMENTATIONS: dict[str, dict[str, Callable]] = {
    "conv": {"xla": reference.conv},
    "depthwise_conv": {"xla": reference.depthwise_conv},
    "max_pool": {"xla": reference.max_pool},
    "avg_pool": {"xla": reference.avg_pool},
    "conv_lstm": {"xla": reference.conv_lstm},
}


def choose(operation: str, implementation: str | None) -> Callable:
    """The function for an operation's implementation; None leaves the choice to the zoo.

    Raises:
      ValueError: the operation has no implementation of that name.
    """
    available = IMPLEMENTATIONS[operation]
    if implementation is None:
        return available["xla"]
    if implementation not in available:
        raise ValueError(f"{operation} has no implementation {implementation!r}; it has {', '.join(available)}")
    return available[implementation]
