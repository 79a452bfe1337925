"""Writes the tables of docs/paper.md and docs/paper-results.md: published, ours, difference, and the test of it.

    python benchmarks/paper

Published figures come from tests/golden, ours from the tables of the package, those of parity from benchmarks/results.
Words of the pages are written by hand; each table stands between two comments and is written by this program.
tests/test_paper.py fails if one is out of date.
"""

import re

from paper_plans import common, mups, proxies, recipes, shapes, stds
from paper_results import compute, law, means, nano_sort, others, parity, pile, stated, training
from paper_rows import PAGES, ROOT, table


def headed(*columns):
    """The head of a table with columns of its own."""
    return f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|\n"


def tables():
    """Every table by the name in its comment."""
    recipe = "peak · decay · batch · its tokens · warm-up · steps · epsilon · decay steps · tokens · per parameter"
    return {
        "shapes": table("layers · d_model · heads · d_head · d_ffn · parameters · of tables · rest", shapes()),
        "recipes": table(recipe, recipes()),
        "stds": table("init std of residual projections", stds()),
        "mup": table("multiplier · hidden std · residual std · hidden rate · logit scale · attention divisor", mups()),
        "proxy": table("proxy", proxies()),
        "common": table("all sizes", common()),
        "compute": table("training FLOPs", compute()),
        "others": table("training FLOPs", others()),
        "law": table("loss, and what the law says", law()),
        "stated": table("statement", stated()),
        "means": table("mean accuracy of seven tasks", means()),
        "pile": table("the Pile", pile()),
        "parity": headed("network", "logits", "worst gradient", "tensors") + "\n".join(parity()),
        "training": headed("run", "steps", "loss", "losses differ by", "weights at the end") + "\n".join(training()),
        "nano sort": headed("nano sort", "found") + "\n".join(nano_sort()),
    }


def filled(page):
    """A page with its tables as they should be."""
    made = tables()

    def fill(found):
        return f"<!-- table: {found[1]} -->\n{made[found[1]]}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def main():
    for name in PAGES:
        page = ROOT / "docs" / name
        page.write_text(filled(page.read_text("utf-8")), "utf-8")
        print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
