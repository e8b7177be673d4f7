"""Checkpoints of a training run: written by Orbax in the background, the last few kept, restored to the bit."""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from zoo.errors import UserError, refused_by_system

_KEPT = 3


class RunCheckpoints:
    """Orbax checkpoints `<folder>/<step>` of a training state and the position of its data loader.

    A checkpoint gets its name only once it is written whole, so one that a crash cut short is never chosen.
    """

    def __init__(self, folder: Path):
        """Raises UserError if the folder cannot be made."""
        self.folder = folder.absolute()
        policy: Any = ocp.training.preservation_policies.LatestN(_KEPT)
        try:
            self.checkpointer = ocp.training.Checkpointer(
                str(self.folder), preservation_policy=policy, cleanup_tmp_directories=True
            )
        except OSError as error:
            raise UserError(f"cannot keep checkpoints in {self.folder}: {error.strerror}") from error

    def save(self, step: int, state: dict[str, Any], loader_state: dict[str, Any]) -> None:
        """Copies the state and returns; it is written while training goes on. Waits for the save before it.

        Raises:
          UserError: the save before this one failed, or this one did at once.
        """
        with self._told_plainly():
            self.checkpointer.wait()
            # Orbax's own threads wait for each other for minutes where no folder can be made.
            tempfile.TemporaryFile(dir=self.folder).close()
            self.checkpointer.save_async(
                step, _by_path(state), force=True, overwrite=True, custom_metadata={"loader": loader_state}
            )

    def wait(self) -> None:
        """Returns once the last save is on disk.

        Raises:
          UserError: it could not be written.
        """
        with self._told_plainly():
            self.checkpointer.wait()

    def restore(self, state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The last checkpoint's state, placed as `state` is, and its loader's; (state, None) if there is none.

        One that is damaged is passed over with a notice, and the one before it taken.

        Raises:
          UserError: it is of another network, such as one for another number of classes, and all that differs is told;
            or all are damaged.
        """
        abstract = {
            name: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=value.sharding)
            for name, value in _by_path(state).items()
        }
        steps = [checkpoint.step for checkpoint in reversed(self.checkpointer.checkpoints)]
        for step in steps:
            try:
                stored: Any = self.checkpointer.metadata(step)
                if stored.metadata is None:
                    raise ValueError("it does not say what it holds")
                self._check_fits({name: value.shape for name, value in abstract.items()}, stored.metadata)
                loaded = self.checkpointer.load(step, abstract)
                loader_state = stored.custom_metadata["loader"]
            except UserError:
                raise
            except (OSError, ValueError, KeyError, TypeError) as error:  # whatever a cut file makes of its reader
                reason = str(error).splitlines()[0][:200]
                warnings.warn(f"the checkpoint {self.folder / str(step)} is damaged: {reason}", stacklevel=2)
                continue
            return jax.tree.unflatten(jax.tree.structure(state), [loaded[name] for name in abstract]), loader_state
        if steps:
            raise UserError(f"none of the checkpoints in {self.folder} can be read; begin anew in another folder")
        return state, None

    def _check_fits(self, wanted: dict[str, tuple[int, ...]], stored: dict[str, Any]) -> None:
        missing = [name for name in wanted if name not in stored]
        extra = [name for name in stored if name not in wanted]
        both = [(name, stored[name].shape, shape) for name, shape in wanted.items() if name in stored]
        misshapen = [f"{name} is {found}, not {shape}" for name, found, shape in both if found != shape]
        problems = {"missing": missing, "unknown": extra, "wrong shape": misshapen}
        if any(problems.values()):
            told = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
            way_out = "has the data set as many classes as when the run was begun?"
            raise UserError(f"the checkpoint in {self.folder} does not fit this network; {told}; {way_out}")

    @contextlib.contextmanager
    def _told_plainly(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            reason = refused_by_system(error)
            if reason is None:
                raise
            # Orbax drops what it had yet to do; that this never ran is no news to anybody.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            good = self.checkpointer.latest
            left = f"the checkpoint of step {good.step} stays" if good else "there is no earlier checkpoint"
            raise UserError(f"cannot save a checkpoint in {self.folder}: {reason}; {left}") from error


def _by_path(state: dict[str, Any]) -> dict[str, jax.Array]:
    """A flat dict from each array's path to the array: what is on disk does not depend on optax's or nnx's classes."""
    return {jax.tree_util.keystr(path): value for path, value in jax.tree.leaves_with_path(state)}
