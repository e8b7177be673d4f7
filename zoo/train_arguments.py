"""What `zoo train` is asked for: an experiment, a published network on other classes, or a run to go on with."""

import dataclasses
import datetime
import inspect
from collections.abc import Sequence
from pathlib import Path

from zoo import configs, registry
from zoo.configs import TrainConfig
from zoo.data import options_of
from zoo.data.labelled_videos import is_labelled_videos
from zoo.errors import UserError
from zoo.fine_tuning import fine_tuning
from zoo.process_flags import ALONE, GivenProcess
from zoo.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains a model and shows how it learns."""

    model: str | None = None
    """What to train: cnn_2d, lstm, video_gen."""
    config: str | None = None
    """An experiment in zoo/configs, such as cnn_lstm_motion; without it the one that is called like the model."""
    task: str | None = None
    """What a model learns of labelled videos: classification, or embedding, vectors by which copies are found. Without
    a model, the experiment of that name."""
    preset: str = "default"
    """A preset of the experiment."""
    init: str | None = None
    """Fine-tuning: the published model to start from, or what follows the model's name in it, such as kinetics400."""
    dataset: str | None = None
    """Another data set than the experiment's: digits, moving_digits, tfds:NAME, or labelled videos: folder:DIR,
    csv:FILE, kinetics400, ucf101, imagenet; on these any architecture trains."""
    data: Path | None = None
    """Where the data set lies, if its name does not say so."""
    freeze: str | None = None
    """A part that does not learn, by its path; "trunk" is all but the head."""
    layer_decay: float | None = None
    """Each layer's learning rate in units of that of the layer behind it."""
    sampler: str | None = None
    """How often classes are seen: instance (as often as they are), square_root, balanced."""
    workers: int | None = None
    """Processes that read and decode; what they give does not depend on how many there are. 0 is two threads."""
    patience: int | None = None
    """Evaluations without a smaller test loss after which training ends; the best one counts."""
    task_options: tuple[str, ...] = ()
    """Of the task, such as label_smoothing=0.1 mixup=0.2 cutmix=1 focal=2 class_balanced=0.99 logit_adjustment=1."""
    steps: int | None = None
    """Optimizer steps."""
    batch_size: int | None = None
    """Clips or images a step."""
    learning_rate: float | None = None
    """The peak learning rate."""
    compute_dtype: str | None = None
    """float32 or bfloat16; parameters stay float32."""
    accumulate: int | None = None
    """Parts that a batch is computed in, one after the other: less memory, the same step."""
    remat: str | None = None
    """products: the backward pass computes all but matrix products and convolutions anew, which saves memory."""
    seed: int | None = None
    """Of parameters, data order, noise and dropout."""
    resume: Path | None = None
    """Folder of a run to go on with, under the settings that it was begun with."""
    runs: Path = Path("runs")
    """Where the new run's folder is made, called by the date."""
    folder: Path | None = None
    """The run's own folder instead: begun if no run is there, else gone on with, if it is the same run."""
    parallel: str = "jit"
    """How a step is split over the devices: jit, shard_map or pmap."""
    fsdp: int = 1
    """Devices that share the parameters between them, each with a part of the batch."""
    tensor: int = 1
    """Devices that compute the same part of the batch, each for some of the features."""
    batch_norm_devices: int = 0
    """Neighbouring devices that share a batch's statistics, with shard_map or pmap; 0 is all."""
    processes: GivenProcess = ALONE
    process_timeout: float = 300.0
    """Seconds after which a process that does not come, or does not go on, is lost and the others stop."""
    max_restarts: int = 0
    """How often training is started anew from its last checkpoint when it crashes."""
    warm: bool = False
    """Compile what this command would run, so that the compilation cache has it, and leave."""
    profile: bool = False
    """Write a trace of some steps into the run's folder."""


def requested_run(arguments: Arguments) -> tuple[TrainConfig, Path]:
    """The config, and the folder of the run, which is there already only if it is gone on with.

    Raises:
      UserError: there is no such thing, or what was asked for contradicts itself.
    """
    if arguments.max_restarts < 0:
        raise UserError(f"--max-restarts is {arguments.max_restarts}; it must be 0 or above")
    return _resumed_run(arguments, arguments.resume) if arguments.resume else _new_run(arguments)


def _new_run(arguments: Arguments) -> tuple[TrainConfig, Path]:
    given = {flag: value for flag in _FLAGS if (value := getattr(arguments, flag)) is not None}
    name = arguments.config or arguments.model or arguments.task
    if name is None:
        raise UserError(f"say what to train with --model or --config: {', '.join(configs.trainable())}")
    if arguments.model and arguments.dataset and is_labelled_videos(arguments.dataset):
        data = str(arguments.data) if arguments.data else None
        task = arguments.task or "classification"
        config = fine_tuning(arguments.model, arguments.dataset, arguments.init, data, task)
    elif arguments.init:
        raise UserError("--init is for --model with --dataset folder:DIR, csv:FILE, kinetics400 or the like")
    else:
        config = configs.experiment(name, arguments.preset)
        if arguments.dataset:  # of what the experiment tells its own data, another one takes what it knows
            known = options_of(arguments.dataset)
            told = {option: value for option, value in config.dataset_options.items() if option in known}
            config = dataclasses.replace(config, dataset_options=told)
        if arguments.data:
            lies = config.dataset_options | {"data": str(arguments.data)}
            config = dataclasses.replace(config, dataset_options=lies)
    task_options = config.task_options | _task_options(config.task, arguments.task_options)
    config = dataclasses.replace(config, task_options=task_options, **given)
    if arguments.config and arguments.model not in (None, config.model):
        raise UserError(f"--config {arguments.config} trains {config.model}, not {arguments.model}; leave out --model")
    if arguments.task not in (None, config.task):
        raise UserError(f"{name} learns {config.task}, not {arguments.task}; leave out --task")
    config.check()
    started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = arguments.runs / f"{config.model}-{config.dataset.replace(':', '-').replace('/', '-')}-{started}"
    if arguments.folder:
        folder = arguments.folder
        _check_same(config, folder)
    return config, folder


def _check_same(config: TrainConfig, folder: Path) -> None:
    """Raises UserError if another run is in the folder; it names what is other."""
    path = folder / "config.json"
    if path.is_file():
        begun = TrainConfig.from_json(path.read_text(encoding="utf-8"))
        # As it would be read: JSON knows no tuples.
        asked = TrainConfig.from_json(config.to_json())
        for field in dataclasses.fields(config):
            if (ours := getattr(asked, field.name)) != (theirs := getattr(begun, field.name)):
                raise UserError(f"{folder} was begun with {field.name} {theirs}, not {ours}; choose another --folder")


def _task_options(task: str, words: Sequence[str]) -> dict[str, float]:
    """Numbers by name, out of name=number."""
    known = {name: parameter.annotation for name, parameter in inspect.signature(TASKS[task]).parameters.items()}
    numbers = [name for name, kind in known.items() if kind is float]
    options = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in numbers:
            raise registry.unknown(f"number among the task options of {task}", name, numbers)
        try:
            options[name] = float(value)
        except ValueError as error:
            raise UserError(f"--task-options {word} is not {name}=NUMBER") from error
    return options


_FLAGS = {
    *("dataset", "steps", "batch_size", "learning_rate", "compute_dtype", "accumulate", "remat", "seed"),
    *("freeze", "layer_decay", "sampler", "workers", "patience"),
}


def _resumed_run(arguments: Arguments, folder: Path) -> tuple[TrainConfig, Path]:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.json")
    config = TrainConfig.from_json(path.read_text(encoding="utf-8"))
    for name in (arguments.config, arguments.model):
        # The command that began the run, with --resume behind it, may name an experiment.
        trains = configs.experiment(name, arguments.preset).model if name in configs.trainable() else name
        if trains not in (None, config.model):
            raise UserError(f"{folder} is a run of {config.model}, not of {name}")
    for flag in sorted({*_FLAGS, "task"}):
        value = getattr(arguments, flag)
        if value is not None and value != getattr(config, flag):
            begun = f"{folder} was begun with {flag} {getattr(config, flag)}, which --resume keeps"
            raise UserError(f"{begun}; leave out --{flag.replace('_', '-')}")
    return config, folder
