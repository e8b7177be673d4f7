"""`zoo COMMAND ...` is `python -m zoo.COMMAND ...`."""

import runpy
import sys

from zoo import command_line, registry

COMMANDS = {
    "predict": "names what happens in a video",
    "detect": "finds objects and people in a video, and follows them",
    "transcribe": "writes down what is said in a video",
    "shots": "the shots of a film, and a contact sheet of them",
    "search": "an index over a folder of videos, and questions to it",
    "report": "one page that shows a video whole",
    "generate": "draws clips",
    "train": "trains a model",
    "evaluate": "measures a published model on labelled videos",
    "publish": "a finished run as a published model",
    "list": "the published models",
    "card": "what is known of a published model",
    "convert": "foreign weights to a checkpoint of ours",
}


def main() -> None:
    """Entry point of the console command `zoo`."""
    command_line.run("zoo", _dispatch)


def _dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: zoo COMMAND ...; `zoo COMMAND --help` tells more\n")
        print("\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items()))
        return
    command, *sys.argv[1:] = argv
    if command not in COMMANDS:
        raise registry.unknown("command", command, COMMANDS)
    runpy.run_module(f"zoo.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
