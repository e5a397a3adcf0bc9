"""The command `python -m benchmarks [NAME ...] [--json]`.

Without a name everything that this machine can run is run. Results go to standard output, progress to
standard error; exit status 0, or 2 with one line that says what is wrong. A comparison is a module with a
function that lists its cases, and an entry in COMPARISONS. The trap: memory is measured in new processes
that import this module, so importing it must do nothing.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks import attention, attribution, capture, decode, home, knockout, page, training
from benchmarks.compare import cases as compare_cases
from benchmarks.comparison import Case, Options, Result, UnavailableError, compare
from benchmarks.memory import peak_mb
from benchmarks.report import check_readme, json_line, table, write_readme
from qa.errors import UserError

COMPARISONS: dict[str, Callable[[Options], list[Case]]] = {
    "attention": attention.cases,
    "training": training.cases,
    "decode": decode.cases,
    "capture": capture.cases,
    "knockout": knockout.cases,
    "attribution": attribution.cases,
    "home": home.cases,
    "compare": compare_cases,
    "page": page.cases,
}
README = Path(__file__).resolve().parent.parent / "README.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.write_readme is not None:
            check_readme(options.write_readme)
        results = _run(options)
        if options.write_readme is not None:
            write_readme(options.write_readme, results)
        print(json_line(results) if options.json else table(results))
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed and memory against what you would run instead, measured in turn.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(COMPARISONS)}, or a single case such as attention-bert (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--rounds", type=_count, metavar="N", help="time each side this often")
    parser.add_argument(
        "--dataset", help="SQuAD JSON file, hub name or pocket (default: SQUAD_DIR, or pocket)"
    )
    parser.add_argument("--model", help="hub name, folder or pocket (default: pocket, or random weights)")
    parser.add_argument(
        "--write-readme",
        nargs="?",
        type=Path,
        const=README,
        metavar="FILE",
        help="put the table between the benchmark markers of README.md, or of FILE; other rows stay",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _run(options: argparse.Namespace) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        offered = Options(Path(scratch), dataset=options.dataset, model=options.model)
        groups = {name: cases(offered) for name, cases in COMPARISONS.items()}
        chosen = choose(groups, options.names, cuda=torch.cuda.is_available())
        results = []
        for case in chosen:
            try:
                results.append(compare(case, peak=peak_mb, rounds=options.rounds, say=say))
            except UnavailableError as error:
                if options.names:
                    raise
                say(f"{case.name}: left out, {error}")
        return results


def choose(groups: Mapping[str, Sequence[Case]], names: Sequence[str], *, cuda: bool) -> list[Case]:
    """The cases that `names` asks for (all without one), each once; a group's only as far as they can run.

    Args:
        groups: the cases of each comparison.
        names: of comparisons or of cases.
        cuda: whether there is a CUDA device.

    Raises:
        UserError: a name that is neither, or a case that needs a CUDA device where there is none.
    """
    cases = {case.name: case for group in groups.values() for case in group}
    chosen: dict[str, Case] = {}
    for name in names or groups:
        if name in groups:
            chosen |= {case.name: case for case in groups[name] if cuda or case.device != "cuda"}
        elif name not in cases:
            raise _unknown(name, [*groups, *cases])
        elif cases[name].device == "cuda" and not cuda:
            raise UserError(f"{name} needs a CUDA device, and there is none; run it where there is one")
        else:
            chosen[name] = cases[name]
    return list(chosen.values())


def _unknown(name: str, known: Sequence[str]) -> UserError:
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "choose one of these, or none for all"
    return UserError(f"no benchmark is called {name!r}; {hint} (there are {', '.join(names)})")


def say(text: str) -> None:
    """Tell the user how it goes."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
