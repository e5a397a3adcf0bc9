"""The one exception a user is meant to read.

Every command turns a `UserError` into its message on standard error and exit status 2, so a message is
one line: what was wrong (with the value received), what is allowed, what to do next. Anything else that
escapes is a defect of ours and keeps its traceback.
"""


class UserError(Exception):
    """Bad input or a situation the user can mend; the message is complete without a traceback."""
