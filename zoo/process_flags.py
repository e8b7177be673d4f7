"""`--coordinator`, `--num-processes`, `--process-id`: how a process is told that it is one of many."""

import dataclasses
from typing import Annotated

import tyro

from zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class ProcessFlags:
    """Of one process among many; on SLURM, Open MPI, Kubernetes and Cloud TPU they are left out."""

    coordinator: str | None = None
    """HOST:PORT of process 0, where processes train together; those that share a list of work need none."""
    num_processes: int | None = None
    """How many processes work together, if the platform does not tell them of each other."""
    process_id: int | None = None
    """Which of them this is, from 0."""

    def check(self, *, meet: bool) -> None:
        """Raises UserError if a flag is missing or wrong; `meet` says that the processes need a coordinator."""
        flags = {"--num-processes": self.num_processes, "--process-id": self.process_id}
        if meet:
            flags = {"--coordinator": self.coordinator, **flags}
        missing = [flag for flag, value in flags.items() if value is None]
        if missing and self != ALONE:
            *others, last = flags
            raise UserError(f"{', '.join(others)} and {last} go together; {', '.join(missing)} is missing")
        host, _, port = (self.coordinator or "host:0").rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--coordinator {self.coordinator} is not HOST:PORT, such as 10.0.0.1:8476")
        count, number = self.num_processes or 0, self.process_id or 0
        if not missing and not 0 <= number < count:
            raise UserError(f"--process-id {number} is not from 0 to {count - 1}")


ALONE = ProcessFlags()
GivenProcess = Annotated[ProcessFlags, tyro.conf.arg(name="")]
"""A field of a command's arguments, whose flags are called as above."""
