"""What chips can do at most, as their makers publish it."""

# Dense bfloat16 FLOP/s of one chip, a multiply-add counted as two, by JAX's name of the device. Google Cloud's pages
# "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e"; NVIDIA's data sheets of A100, H100 and H200, without sparsity.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
}
