"""Small talk from chatterbot-corpus: python examples/recipe_dialogue.py runs/quickstart (needs pyyaml too)."""

from recipe import adapted, arguments, package_file

from cerebras_gpt.tasks.dialogue import Dialogue
from cerebras_gpt.text.chat import Message


def main() -> None:
    """Tunes on conversations, and says hello."""
    import yaml

    given = arguments(__doc__, "runs/dialogue")
    folder = package_file("chatterbot-corpus", "data/english/greetings.yml").parent
    talks = [
        [str(turn) for turn in talk]
        for file in sorted(folder.glob("*.yml"))
        for talk in yaml.safe_load(file.read_text("utf-8"))["conversations"]
    ]
    rows = [{"messages": talk[: len(talk) // 2 * 2]} for talk in talks if len(talk) >= 2 and all(talk)]
    lm = adapted(given, "dialogue", rows)
    print("Hello, how are you? ->", Dialogue().reply(lm, [Message("user", "Hello, how are you?")]))


if __name__ == "__main__":
    main()
