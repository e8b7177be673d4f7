"""One optimizer step, on a network that tells what its dropout left out."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.configs import TrainConfig
from zoo.optimizers import make_optimizer
from zoo.parallel import Parallel
from zoo.train_step import make_state, make_train_step

CONFIG = TrainConfig("leaky", "telling", "none", steps=10, batch_size=1, learning_rate=0.1)


class Leaky(nnx.Module):
    """Two layers of dropout beside each other."""

    def __init__(self, rngs: nnx.Rngs):
        self.weight = nnx.Param(jnp.ones(()))
        self.layers = nnx.List(nnx.Dropout(0.5, rngs=rngs) for _ in range(2))


class Telling:
    """A task whose figures are what was left of ones."""

    def loss(self, model, batch, key):
        left = jnp.stack([layer(batch["ones"]) > 0 for layer in model.layers])
        return jnp.square(model.weight[...]), {"left": left}


def test_dropout_draws_anew_at_each_step_and_in_each_layer():
    optimizer = make_optimizer(CONFIG, {})
    graph, state, random = make_state(Leaky(nnx.Rngs(0)), optimizer)
    step = jax.jit(make_train_step(CONFIG, Telling(), optimizer, graph, random, (), Parallel()))
    batch = {"ones": jnp.ones((1, 1000))}
    after, first = step(state, batch)
    _, again = step(state, batch)
    _, second = step(after, batch)
    np.testing.assert_array_equal(first["left"], again["left"])
    drawn = np.concatenate([first["left"], second["left"]])[:, 0]
    np.testing.assert_allclose(drawn.mean(axis=1), 0.5, atol=0.06)
    for one in range(4):
        for other in range(one):
            np.testing.assert_allclose((drawn[one] == drawn[other]).mean(), 0.5, atol=0.06)
