"""How calls of an environment can end badly, in words. Imports nothing, so that commands start at
once."""


class EnvironmentFailed(RuntimeError):
    """An environment raised something, or gave what cannot be learnt from; says what and where."""


class EnvironmentLost(EnvironmentFailed):
    """The environment is gone in the middle of an episode, and another may take its place."""


class StoppedAtOnce(KeyboardInterrupt):
    """A second signal: whoever runs the program does not want to wait for the next step."""

    inside = ""
    """The call of an environment that was waited for, in words; empty: none."""


def in_words(error: BaseException) -> str:
    """What an error says, with the notes that were added on its way; its type where it says
    nothing."""
    return " ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
