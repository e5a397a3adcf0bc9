"""The one exception a user is meant to read.

Every command turns a `UserError` into its message on standard error and exit status 2, so a message is
one line: what was wrong (with the value received), what is allowed, what to do next. Anything else that
escapes is a defect of ours and keeps its traceback.
"""

import re


class UserError(Exception):
    """Bad input or a situation the user can mend; the message is complete without a traceback."""


OUT_OF_MEMORY = re.compile(r"out of memory|can(?:'t|not) allocate memory|not enough memory", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, as Python or torch says it."""
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))
