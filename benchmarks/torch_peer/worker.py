"""PyTorch's side of `python -m benchmarks.models`; run by another Python, it imports nothing of the project.

Commands are answered as `serving` has it. torch is imported by the first of them, so that its absence can be told.
"""

import os

from serving import serve


def hello():
    import torch
    import torchvision

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return {"versions": {"torch": torch.__version__, "torchvision": torchvision.__version__}}


def command(name):
    def run(**arguments):
        import programs

        return getattr(programs, name)(**arguments)

    return run


if __name__ == "__main__":
    serve({"hello": hello} | {name: command(name) for name in ("shapes", "load", "turn", "peak")})
