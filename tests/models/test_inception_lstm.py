"""A frame network that starts from I3D's is I3D on a film that stands still."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo import hub, kernels, registry


@pytest.fixture(autouse=True)
def plain_lax():
    """It compiles several times as fast; the other forms have tests of their own."""
    with kernels.prefer("xla"):
        yield


@pytest.fixture(scope="module")
def model():
    made = registry.create("inception_lstm")
    hub.start_from(made, "frames", zoo.card("i3d_kinetics400"))
    made.eval()
    return made


@pytest.mark.slow
def test_summed_over_time_i3d_sees_a_still_film(model):
    """Far from both ends of a film that stands still each layer of I3D sees the same everywhere."""
    teacher = zoo.load("i3d_kinetics400").model
    picture = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3), minval=-1, maxval=1)
    film = jnp.broadcast_to(picture[:, None], (1, 136, 64, 64, 3))

    @nnx.jit
    def maps(teacher, model):
        of_film = teacher.mixed_5c(teacher.mixed_5b(teacher.lower(film)))
        return of_film[:, of_film.shape[1] // 2], model.frames.maps(picture)

    of_film, of_picture = maps(teacher, model)
    np.testing.assert_allclose(of_picture, of_film, atol=1e-3 * float(of_film.max()))


def test_it_starts_with_the_teacher_s_classifier_and_no_correction(model):
    teacher = zoo.load("i3d_kinetics400").model
    features = jax.random.uniform(jax.random.key(0), (2, 5, 1024))
    found, _ = model.follow(features)
    np.testing.assert_array_equal(found["logits"], found["uncorrected"])
    np.testing.assert_allclose(found["logits"][:, -1], teacher.classify(features.mean(1)), atol=1e-4)


def test_a_video_in_pieces_gives_what_it_gives_as_a_whole(model):
    model = nnx.clone(model)
    model.correction.kernel.set_value(jax.random.normal(jax.random.key(1), model.correction.kernel.shape))
    x = jax.random.uniform(jax.random.key(0), (1, 4, 32, 32, 3), minval=-1, maxval=1)
    along = nnx.jit(lambda model, x, state: model.along(x, state))
    whole, _ = along(model, x, None)
    first, state = along(model, x[:, :3], None)
    last, _ = along(model, x[:, 3:], state)
    np.testing.assert_allclose(jnp.concatenate([first, last], 1), whole, atol=1e-4)
