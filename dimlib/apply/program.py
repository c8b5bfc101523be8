"""The command as a program: its streams, interruptions, and exit codes. See `dimlib.apply.command` for what it does."""

import io
import sys
import traceback

__all__ = ["run"]


class Output(io.FileIO):
    """A stream to write to. If its reader has left, as ``head`` does, or its disk is full, all further text is dropped,
    and the program goes on, or reports what was wrong."""

    lost = False

    def write(self, text):
        if self.lost:
            return len(text)
        try:
            return super().write(text)
        except OSError as error:
            self.lost = True
            if isinstance(error, BrokenPipeError):
                return len(text)
            raise OSError(f"the answer cannot be written to standard output: {error.strerror}") from error


def opened(stream):
    """The same stream as `Output`, with ? for what it cannot show, such as σ."""
    if stream is None:                                                     # closed by the shell
        return None
    raw = Output(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, errors="replace", line_buffering=True)


def run() -> int:
    """Run the command. Returns its exit code."""
    sys.stdout, sys.stderr = opened(sys.stdout), opened(sys.stderr)
    try:
        from .command import main

        return main()
    except KeyboardInterrupt:
        if sys.stdout:
            sys.stdout.buffer.raw.lost = True                              # or a line may be written again
        print("python -m dimlib: interrupted", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        return 4
