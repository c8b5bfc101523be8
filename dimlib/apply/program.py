"""The command as a program: its streams, interruptions, and exit codes. See `dimlib.apply.command` for what it does."""

import io
import sys
import traceback

__all__ = ["run"]

NO_ROOM = 5


class Output(io.FileIO):
    """A stream to write to. If its reader has left, as ``head`` does, or its disk is full, it remembers the error and
    drops all further text, and the program goes on: its report may have room elsewhere."""

    lost: OSError | bool = False

    def write(self, text):
        if not self.lost:
            try:
                return super().write(text)
            except OSError as error:
                self.lost = error
        return len(text)


def opened(stream):
    """The same stream as `Output`, with ? for what it cannot show, such as σ."""
    if stream is None:                                                     # closed by the shell
        return None
    raw = Output(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, errors="replace", line_buffering=True)


def arrived(code, lost):
    """The exit code, or `NO_ROOM` for an answer that could not be printed. (A reader that has left wanted no more.)"""
    if code not in (0, 3) or not lost or isinstance(lost, BrokenPipeError):
        return code
    print(f"python -m dimlib: error: the answer cannot be written to standard output ({lost.strerror}): make room, or "
          "send it elsewhere", file=sys.stderr)
    return NO_ROOM


def run() -> int:
    """Run the command. Returns its exit code."""
    sys.stdout, sys.stderr = opened(sys.stdout), opened(sys.stderr)
    try:
        from .command import main

        code = main()
        return arrived(code, sys.stdout.buffer.raw.lost) if sys.stdout else code
    except KeyboardInterrupt:
        if sys.stdout:
            sys.stdout.buffer.raw.lost = True                              # or a line may be written again
        print("python -m dimlib: interrupted", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        return 4
