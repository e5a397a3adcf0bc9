"""Ask a model in the terminal and see where it looked: `python interactive_attention_analysis.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from probes.maps import View
from probes.terminal import converse, report
from qa.commands import take_any_character
from qa.errors import UserError
from qa.experiment import experiments_dir
from qa.printing import visible


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    options = _parser().parse_args(arguments)
    take_any_character()
    try:
        try:
            _run(options)
        except (EOFError, KeyboardInterrupt):
            print()
        sys.stdout.flush()
    except UserError as error:
        print(f"interactive_attention_analysis: {visible(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has had enough of it (`| head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Ask an experiment's model, see what it attends to, and save heatmaps of it. Without "
        "arguments everything is asked for."
    )
    parser.add_argument("--experiment", metavar="NAME", help="whose model to ask")
    parser.add_argument("--question")
    parser.add_argument("--context", help="the text to look in")
    parser.add_argument("--layers", default="", help="heatmaps of these, such as 0-5, 3,4 or all")
    parser.add_argument("--heads", default="", help="heatmaps of these single heads too, such as 3,4 or all")
    parser.add_argument("--experiments-dir", metavar="DIR", help="default: EXPERIMENTS_DIR, or experiments")
    return parser


def _run(options: argparse.Namespace) -> None:
    root = experiments_dir(options.experiments_dir)
    given = [options.experiment, options.question, options.context]
    if None not in given:
        texts = (options.question, options.context)
        report(root, _draw, name=options.experiment, texts=texts, layers=options.layers, heads=options.heads)
    elif given == [None] * 3 and not options.layers and not options.heads:
        converse(root, _draw)
    else:
        raise UserError(
            "give --experiment, --question and --context together (--layers and --heads with them), or none "
            "of them to be asked"
        )


def _draw(view: View, layer: int, head: int | None, *, title: str, caption: Sequence[str]) -> bytes:
    # Altair takes a second to import, which who wants no picture need not wait for.
    from dashboard.charts.rendering import attention_png

    return attention_png(view, layer, head, title=title, caption=caption)


if __name__ == "__main__":
    sys.exit(main())
