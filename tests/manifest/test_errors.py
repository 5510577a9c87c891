from __future__ import annotations

import errno
import pickle

import pytest

from manifest.errors import FieldProblem, InputError, RecipeError, WinnowError, run_command

Capture = pytest.CaptureFixture[str]


def raising(error: BaseException) -> int:
    def command() -> None:
        raise error

    return run_command(command)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a flag is wrong"), 2, "error: a flag is wrong"),
        (WinnowError("we are wrong"), 1, "error: we are wrong"),
        (OSError(errno.ENOSPC, "no space", "/data/x"), 2, "error: the disk is full while writing /data/x"),
        (PermissionError(errno.EACCES, "denied", "/data/x"), 2, "error: /data/x: permission denied"),
        (NotADirectoryError(errno.ENOTDIR, "no", "/data/x"), 2, "error: /data/x: a part of the path is a file"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_the_exit_code_tells_whose_fault_it_is(error: BaseException, code: int, message: str, capsys: Capture) -> None:
    assert raising(error) == code
    assert capsys.readouterr().err.startswith(message)


def test_other_errors_of_the_system_are_not_hidden() -> None:
    with pytest.raises(PermissionError):
        raising(PermissionError(errno.EACCES, "denied"))


def test_a_traceback_is_there_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_TRACEBACK", "1")
    with pytest.raises(InputError):
        raising(InputError("x"))


def test_a_recipe_error_keeps_its_fields_on_the_way_between_processes() -> None:
    error = RecipeError("two are wrong", [FieldProblem(("a", 0), "is missing")])
    sent = pickle.loads(pickle.dumps(error))
    assert (str(sent), sent.problems) == ("two are wrong", (FieldProblem(("a", 0), "is missing"),))
