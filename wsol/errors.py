"""The exceptions for input that is wrong: their text says what, where, and what to do."""

__all__ = ["FaultyDataError", "UserError"]


class UserError(ValueError):
    """Input that only the user can mend; the command line prints its text and exits with 2.

    It takes one string, so that it survives pickling on its way back from worker processes.

    Examples
    --------
    >>> raise UserError("tau = 1.5 is outside [0, 1): pass a fraction of the map's maximum")
    Traceback (most recent call last):
    ...
    wsol.errors.UserError: tau = 1.5 is outside [0, 1): pass a fraction of the map's maximum
    """

    exit_code = 2


class FaultyDataError(UserError):
    """Data was read whole and has faults that change numbers: what `wsol check` is for, so it exits with 1."""

    exit_code = 1
