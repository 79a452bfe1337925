"""A conversation in the terminal, or over a pipe: one line in, one answer out."""

import sys

from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.record import console
from cerebras_gpt.text.chat import Message, Recall

HELP = "/reset forgets, /system TEXT sets the scene, Ctrl-C stops an answer, Ctrl-D ends"


def converse(lm: LM, system: str, max_tokens: int, sampling: Sampling, recall: Recall) -> None:
    """Reads lines until there are no more."""
    screen, history = console(), opening(system)
    if sys.stdin.isatty():
        import readline  # noqa: F401 - gives input() its history

        screen.print(f"[dim]{HELP}[/dim]")
    while (line := _line()) is not None:
        if line == "/reset":
            history = [message for message in history if message.role == "system"]
        elif line.startswith("/system"):
            history = opening(line.removeprefix("/system").strip())
        elif line.startswith("/"):
            screen.print(HELP, markup=False)
        elif line:
            history.append(Message("user", line))
            prompt = fitting_prompt(lm, history, recall)
            history.append(Message("assistant", _answer(lm, prompt, max_tokens, sampling)))


def opening(system: str) -> list[Message]:
    """How a conversation begins."""
    return [Message("system", system)] if system else []


def fitting_prompt(lm: LM, history: list[Message], recall: Recall) -> str:
    """The conversation as a prompt; once it fills over three quarters of the context `recall` stands for old turns."""
    most = lm.model.architecture.seq_len * 3 // 4
    kept = lm.chat_template.window(history, lambda prompt: len(lm.tokenizer.encode(prompt)) <= most, recall)
    return lm.chat_template.prompt(kept)


def _line() -> str | None:
    """The next line; None when there are no more."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


def _answer(lm: LM, prompt: str, max_tokens: int, sampling: Sampling) -> str:
    """Prints an answer as it comes and gives it; Ctrl-C ends it early."""
    pieces: list[str] = []
    try:
        for piece in lm.stream(prompt, max_tokens, sampling, lm.chat_template.stop):
            text = piece if pieces else piece.lstrip()
            pieces += [text] if text else []
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        print(" [stopped]", end="", file=sys.stderr)
    print(flush=True)
    return "".join(pieces).strip()
