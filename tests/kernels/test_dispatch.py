"""Which implementation runs: named, listed, measured, by the platform lowered for; and the gradients' plumbing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from zoo import kernels
from zoo.kernels import dispatch

# No kernel serves float64 or float16, so this list ends at plain lax, by way of the operations and their custom_vjp.
LAST_RESORT = ("pallas_tpu", "xla")


def random(*shape, seed=0):
    """float64, which no kernel serves."""
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def test_a_name_that_cannot_serve_says_why():
    x = np.zeros((1, 4, 4, 2), np.float16)
    with pytest.raises(ValueError, match=r"max_pool of float16\[1, 4, 4, 2\]: pallas_tpu: kernels compute in float32"):
        kernels.max_pool(x, window=(2, 2), implementation="pallas_tpu")
    with pytest.raises(ValueError, match=r"pallas_tpu: .*; pallas_gpu: "):
        kernels.max_pool(x, window=(2, 2), implementation=["pallas_tpu", "pallas_gpu"])
    with pytest.raises(ValueError, match="pallas_gpu: depthwise_conv has no such implementation"):
        kernels.depthwise_conv(x, np.zeros((3, 3, 1, 2), np.float16), implementation="pallas_gpu")
    with pytest.raises(ValueError, match="names none"):
        kernels.max_pool(x, window=(2, 2), implementation=[])


def test_cutting_the_input_is_plain_lax_s():
    x = random(1, 6, 6, 2).astype(np.float32)
    cut = {"window": (2, 2), "strides": 1, "padding": ((-1, 0), (0, -2))}
    with pytest.raises(ValueError, match="rewritten: negative padding"):
        kernels.max_pool(x, **cut, implementation="rewritten")
    np.testing.assert_array_equal(
        kernels.max_pool(x, **cut), kernels.max_pool(x[:, 1:, :-2], window=(2, 2), strides=1, implementation="xla")
    )


def test_a_list_goes_on_to_the_next():
    x = random(1, 4, 4, 2).astype(np.float16)
    out = kernels.max_pool(x, window=(2, 2), implementation=LAST_RESORT)
    np.testing.assert_array_equal(out, kernels.max_pool(x, window=(2, 2), implementation="xla"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x: kernels.conv(x, np.zeros((3, 3, 2, 4), np.float16)), "x float64, kernel float16"),
        (lambda x: kernels.conv(x.astype(int), np.zeros((3, 3, 2, 4), int)), "floating dtype"),
        (lambda x: kernels.conv(x, np.zeros((3, 3, 2, 4), np.float64), strides=0), "strides=0 should be 1 or more"),
        (lambda x: kernels.conv(x, np.zeros((3, 3, 2, 4), np.float64), padding="FULL"), "padding 'FULL' is neither"),
        (lambda x: kernels.conv(x, np.zeros((3, 3, 2, 4), np.float64), padding=[(1, 1)]), "1 pairs for 2 spatial"),
        (lambda x: kernels.conv(x, np.zeros((9, 3, 2, 4), np.float64), padding="VALID"), r"\(9, 3\) .* not fit into"),
        (lambda x: kernels.max_pool(x, window=(2, 2), padding=[(2, 0), (0, 0)]), "as large as the window"),
        (lambda x: kernels.avg_pool(x.astype(int), window=(2, 2)), "floating dtype"),
        (lambda x: kernels.conv_transpose(x, np.zeros((3, 3, 4, 2), np.float64)), "do not fit"),
        (
            lambda x: kernels.conv_bias_act_pool(
                x, np.zeros((3, 3, 2, 4), np.float64), np.zeros(4, np.float64), activation="selu"
            ),
            "activation 'selu' is none of 'relu'",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong(random(1, 5, 5, 2))


def choose(monkeypatch, platform, operation, name, operands, options):
    tables = {platform: {f"{operation} {dispatch.describe(operands, options)}": {"implementation": name}}}
    monkeypatch.setattr(dispatch, "_tuned", lambda asked: tables.get(asked, {}))


def test_the_platform_is_the_one_lowered_for(monkeypatch):
    """No TPU here: the program lowered for one holds a kernel all the same, and the program for this CPU does not."""
    x = jnp.asarray(random(2, 8, 8, 128), jnp.float32)
    options = {"window": (2, 2), "strides": (2, 2), "padding": ((0, 0), (0, 0))}
    choose(monkeypatch, "tpu", "max_pool", "pallas_tpu", [x], options)

    def pooled(x):
        return kernels.max_pool(x, window=(2, 2)).sum()

    for function in (pooled, jax.value_and_grad(pooled)):
        traced = jax.jit(function).trace(x)
        assert "tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()
        assert "tpu_custom_call" not in traced.lower(lowering_platforms=("cpu",)).as_text()
    np.testing.assert_allclose(
        pooled(x), lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID").sum(), rtol=1e-5
    )


def test_a_rule_reaches_from_the_smallest_call_that_was_measured(monkeypatch):
    rule = {"implementation": "rewritten", "from_work": 2 * (2 * 2) * (2 * 2) * 3}
    monkeypatch.setattr(dispatch, "_tuned", lambda platform: {"max_pool of 2 axes": rule} if platform == "cpu" else {})
    options = {"window": (2, 2), "strides": (2, 2), "padding": ((0, 0), (0, 0))}

    def is_plain(*shape):
        return dispatch.is_plain(("max_pool",), dispatch.call("max_pool", [jnp.zeros(shape)], options, None))

    assert is_plain(1, 4, 4, 3)
    assert not is_plain(2, 4, 4, 3)
    assert not is_plain(1, 8, 8, 3)


def test_a_choice_that_refuses_leaves_the_call_to_lax(monkeypatch):
    x = jnp.asarray(random(1, 4, 4, 2), jnp.float16)
    choose(
        monkeypatch,
        "cpu",
        "max_pool",
        "pallas_tpu",
        [x],
        {"window": (2, 2), "strides": (2, 2), "padding": ((0, 0), (0, 0))},
    )
    assert kernels.max_pool(x, window=(2, 2)).shape == (1, 2, 2, 2)


def test_prefer_overrules_the_tables_and_not_a_name(monkeypatch):
    x = jnp.asarray(random(1, 4, 4, 2), jnp.float16)
    with dispatch.prefer("pallas_tpu"):
        with pytest.raises(ValueError, match="nothing asked for serves max_pool"):
            kernels.max_pool(x, window=(2, 2))
        assert kernels.max_pool(x, window=(2, 2), implementation="xla").shape == (1, 2, 2, 2)
    assert kernels.max_pool(x, window=(2, 2)).shape == (1, 2, 2, 2)


def test_forward_mode_and_second_derivatives_are_plain_lax_s():
    x = random(1, 5, 5, 2)
    kernel = random(3, 3, 2, 4, seed=1)
    check_grads(lambda x, k: kernels.conv(x, k, implementation="xla"), (x, kernel), order=2, rtol=1e-2)
    with kernels.prefer("xla"):
        check_grads(lambda x: kernels.max_pool(x, window=(2, 2)), (x,), order=1, modes=["fwd"], rtol=1e-2)


def test_forward_mode_of_another_implementation_says_which_one_has_it():
    def pooled(x):
        return kernels.max_pool(x, window=(2, 2), implementation="rewritten")

    x = random(1, 4, 4, 2)
    with pytest.raises(TypeError, match=r'plain lax\'s: ask for implementation="xla", or trace within'):
        jax.jvp(pooled, (x,), (x,))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(jax.jit(pooled), (x,), (x,))


def test_second_derivatives_of_what_is_rewritten():
    x, kernel = random(1, 6, 5, 3), random(3, 3, 1, 3, seed=1)

    def penalty(implementation):
        def loss(x):
            y = kernels.depthwise_conv(x, kernel, implementation=implementation)
            return jnp.sin(kernels.max_pool(y, window=(2, 2), implementation=implementation)).sum()

        return jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum())(x)

    np.testing.assert_allclose(penalty("rewritten"), penalty("xla"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((2, 7, 3), (3, 3, 4), {}),
        ((1, 2, 6, 5, 4), (3, 2, 2, 6), {"strides": (2, 1), "groups": 2}),
        ((1, 5, 6, 7, 2), (2, 3, 1, 2, 3), {"dilation": (1, 2, 1), "padding": ((0, 1), (2, 0), (0, 0))}),
        ((1, 6, 6, 2), (3, 3, 2, 3), {"padding": ((-1, 0), (0, -2))}),
    ],
)
def test_gradients_of_a_conv_come_by_way_of_its_operations(x, kernel, options):
    """The operations' plumbing against lax's own gradient of the whole."""
    x, kernel = random(*x), random(*kernel, seed=1)

    def loss(x, kernel, names):
        return jnp.sin(kernels.conv(x, kernel, **options, implementation=names)).sum()

    ours = jax.grad(loss, (0, 1))(x, kernel, LAST_RESORT)
    for one, other in zip(ours, jax.grad(loss, (0, 1))(x, kernel, "xla"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2),), ((0, 0),), ((3, 3),)])
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 1), (2, 2), (3, 2), (4, 3), (2, 3)])
def test_conv_transpose_is_lax_s(padding, window, stride):
    x, kernel = random(2, 5, 3), random(window, 3, 4, seed=1)

    def theirs(x, kernel):
        return lax.conv_transpose(x, kernel, (stride,), padding, dimension_numbers=("NHC", "HIO", "NHC"))

    def ours(x, kernel):
        return kernels.conv_transpose(x, kernel, strides=stride, padding=padding, implementation=LAST_RESORT)

    np.testing.assert_allclose(ours(x, kernel), theirs(x, kernel), rtol=1e-10, atol=1e-12)
    for one, other in zip(
        jax.grad(lambda *a: jnp.sin(ours(*a)).sum(), (0, 1))(x, kernel),
        jax.grad(lambda *a: jnp.sin(theirs(*a)).sum(), (0, 1))(x, kernel),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "tanh", "sigmoid", None])
@pytest.mark.parametrize("with_residual", [False, True])
def test_the_fused_block_is_its_parts(activation, with_residual):
    x, kernel, bias = random(2, 6, 6, 3), random(3, 3, 3, 4, seed=1), random(4, seed=2)
    residual = random(2, 6, 6, 4, seed=3) if with_residual else None

    def fused(x, kernel, bias):
        return kernels.conv_bias_act_pool(
            x,
            kernel,
            bias,
            activation=activation,
            window=(2, 2),
            residual=residual,
            implementation=LAST_RESORT,
        )

    def parts(x, kernel, bias):
        y = kernels.conv(x, kernel) + bias + (0 if residual is None else residual)
        act = {None: lambda y: y, "gelu": lambda y: jax.nn.gelu(y, approximate=False), "tanh": jnp.tanh}
        y = act.get(activation, getattr(jax.nn, activation or "", None))(y)
        return kernels.max_pool(y, window=(2, 2))

    np.testing.assert_allclose(fused(x, kernel, bias), parts(x, kernel, bias), rtol=1e-10, atol=1e-12)
    for one, other in zip(
        jax.grad(lambda *a: jnp.sin(fused(*a)).sum(), (0, 1, 2))(x, kernel, bias),
        jax.grad(lambda *a: jnp.sin(parts(*a)).sum(), (0, 1, 2))(x, kernel, bias),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_every_choice_in_the_tables_exists():
    for platform in ("tpu", "cuda", "cpu"):
        for key, choice in dispatch._tuned(platform).items():
            operation = key.split()[0]
            assert choice["implementation"] in dispatch.OPERATIONS[operation].modules, key
            assert dispatch.implementation(operation, choice["implementation"])
