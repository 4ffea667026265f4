"""The `ffaa` command: its verbs, and what every error becomes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from ffaa.cli import ablate, analyze, bench, data, doctor, mine, report, schema, serve, train, vqa, weights
from ffaa.errors import FFAAError

INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports it

app = typer.Typer(
    name="ffaa",
    help="Says of each face in a photo whether it looks real or forged, and why. A model's opinion, never proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: the same in a terminal and in the docs, and sooner there
)
app.command("analyze")(analyze.analyze)
app.command("report")(report.report)
app.command("schema")(schema.schema)
app.add_typer(weights.app, name="weights")
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(vqa.app, name="vqa")
app.add_typer(train.app, name="train")
app.command("mine")(mine.mine)
app.command("ablate")(ablate.ablate)
app.command("serve")(serve.serve)
app.add_typer(bench.app, name="bench")

# What a file system refuses for a reason outside the program, and the way out of it.
_REFUSED = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there and run it again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "allow it, or choose another path"),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EFBIG), "choose another path"
    ),
}

# What every error about the arguments derives from; its name is not public in typer.
_ArgumentError: type[Any] = typer.BadParameter.__mro__[2]


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code. Every error is one line on stderr; FFAA_DEBUG=1 shows where."""
    _tolerate_any_name()
    _yield_processors()
    try:
        code = app(args=None if args is None else list(args), prog_name="ffaa", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except FFAAError as error:
        return _fail(str(error), error.exit_code, error)
    except _ArgumentError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return 2
        return _fail(f"{error.format_message()} (see ffaa --help)", 2, error)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _close_stdout()
        return BROKEN_PIPE
    except SystemExit as ended:  # typer ends so on a broken pipe
        _close_stdout()
        return ended.code if isinstance(ended.code, int) else 1
    except Exception as error:
        bug = f"unexpected {type(error).__name__}: {error} - a bug; run again with FFAA_DEBUG=1 to see where"
        return _fail(_from_outside(error) or bug, 1, error)


def _fail(message: str, code: int, error: BaseException | None = None) -> int:
    if error is not None and os.environ.get("FFAA_DEBUG", "0") not in {"", "0"}:
        import traceback

        traceback.print_exception(error)
    typer.secho(f"ffaa: {' '.join(message.split())}", fg="red", err=True, color=_color())
    return code


def _from_outside(error: Exception) -> str | None:
    """What to say of an error that the machine is the cause of, with the way out; None of another."""
    if isinstance(error, OSError) and error.errno in _REFUSED:
        file = "" if error.filename is None else f"{error.filename}: "
        return f"{file}{os.strerror(error.errno).lower()}; {_REFUSED[error.errno]}"
    if _is_out_of_memory(error):
        more = "make room, or ask for less at once: a smaller batch or model, fewer workers"
        return f"out of memory ({str(error).strip() or 'no more is said'}); {more}"
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Of Python, NumPy or the system, of torch on a GPU, or on the processor, where torch has no class for it."""
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def _color() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None


def _tolerate_any_name() -> None:
    """File names may hold bytes that the terminal's encoding lacks; they are escaped instead of ending the run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _yield_processors() -> None:
    """Threads that wait for each other sleep soon, so that on a busy machine they do not wait for one that cannot run.

    By itself GNU OpenMP, which torch computes with on Linux, spins 300,000 rounds first. Read when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _close_stdout() -> None:
    """So that Python does not complain at its end about output that nobody reads."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout has no descriptor
        return
