"""Which of the models' cases the implementations refuse. What is not here they have to serve: nothing is skipped."""

_IMAGES = {f"efficientnet stage {number}" for number in (1, 2, 3, 4, 5, 6)}

REFUSED: dict[tuple[str, str], set[str]] = {
    # More VMEM than there is: the gradient of a 7x7x7 stem's weights, and an image of 224x224 with its gradient.
    ("pallas_tpu", "conv_weight_gradient"): {"i3d conv 1a"},
    ("pallas_tpu", "max_pool_gradient"): {"cnn_2d pool 1", "cnn_2d block 1"},
    # Not written: depthwise convolution of images with strides, and the gradient of its weights.
    ("pallas_tpu", "depthwise_conv"): {"efficientnet stage 2 first"},
    ("pallas_tpu", "depthwise_conv_weight_gradient"): _IMAGES,
    # Too little work for one block's threads.
    ("pallas_gpu", "max_pool"): {"i3d mixed 4f branch 3"},
    # Strides, channels that are no multiple of 8, features that are no multiple of 64.
    ("pallas_gpu", "conv"): {
        "i3d conv 1a",
        "r3d stem",
        "r2plus1d stem",
        "resnet stem",
        "efficientnet_lite0 stem",
        "cnn_2d conv 1",
        "resnet layer 2 first",
        "i3d mixed 3b branch 2",
        "r3d layer 2 first",
        "r2plus1d stem time",
        "r2plus1d layer 1 space",
    },
}


def is_refused(implementation: str, operation: str, case_name: str) -> bool:
    return case_name in REFUSED.get((implementation, operation), set())
