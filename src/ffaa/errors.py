"""One base error and its few children. Every message says what is wrong and what to do next, in one line."""


class FFAAError(Exception):
    """Base of every error that ffaa raises on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(FFAAError):
    """The caller asked for something that cannot be (unknown option value, unknown key in a recipe)."""

    exit_code = 2


class InputError(FFAAError):
    """A photo or file given by the user cannot be read, is too large, too small, or is not what it claims to be."""


class TooLargeError(InputError):
    """A file with more bytes, pixels or faces than the limits allow."""


class WeightsError(FFAAError):
    """A weight file is missing, corrupted (hash differs) or does not fit the model (missing or extra keys)."""


class MissingExtraError(FFAAError):
    """A feature needs an optional extra that is not installed; the message names the extra."""
