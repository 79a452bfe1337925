"""The served page in a real browser.

Skipped where there is no playwright or no Chromium on the path: a browser is no Python package, so it cannot be asked
of every machine that runs the tests. Whatever a test does, no request may leave the server's address, and the browser
may report neither an error nor anything the content security policy had to stop.
"""

import json
import re
import shutil

import pytest
import torch
from serving import Running

from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.text.tokenizer import train_tokenizer

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path: apt-get install chromium")
expect = playwright.expect

TEXT = "The cat sat on the mat. Für die Katze 🐈 ist die Matte schön.\n"
DESK, PHONE = {"width": 1100, "height": 800}, {"width": 375, "height": 667}


def endless(seed: int) -> LM:
    """A model that never ends a text by itself: the end's logit lies far below all others."""
    tokenizer = train_tokenizer([TEXT * 20], vocab_size=280)
    architecture = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=280, seq_len=4096)
    parametrization = Parametrization(architecture.n_layers, architecture.d_head, base_init_std=0.3)
    model = initialize(GPT(architecture, parametrization), torch.Generator().manual_seed(seed)).eval()
    with torch.no_grad():
        model.norm.bias[0], model.token_embedding.weight[tokenizer.end_of_text, 0] = 9, -9
    return LM(model, tokenizer)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with one training run that has begun."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small").mkdir()
    record(folder, *({"kind": "train", "step": n, "tokens": n * 1000, "loss": 5 / n**0.3} for n in range(1, 40)))
    record(folder, {"kind": "held_out", "step": 39, "tokens": 39_000, "loss": 1.8, "bits_per_byte": 0.9})
    record(folder, {"kind": "sample", "step": 39, "tokens": 39_000, "prompt": "The cat", "text": " sees <b>milk</b>."})
    prediction = {"law": "a law", "bits_per_byte": 0.8, "low": 0.7, "high": 0.9}
    (folder / "small" / "plan.json").write_text(json.dumps({"prediction": prediction}), "utf-8")
    return folder


def record(folder, *rows):
    """Adds lines to the run, as training does."""
    with (folder / "small" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"tokens_per_second": 900.0, **row}) + "\n")


@pytest.fixture(scope="module")
def running(runs):
    made = Running({"first": endless(0), "second": endless(1)}, runs=runs)
    yield made
    made.wait_until_idle()
    made.end()


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # it sees only our own page
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, running):
    """Opens a page of the server; at the end nothing may have gone wrong and nothing may have gone out."""
    wrong, contexts = [], []

    def opened(path="/", viewport=DESK, scheme="light"):
        context = chromium.new_context(viewport=viewport, color_scheme=scheme)
        context.set_default_timeout(8000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda told: wrong.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith((running.url, "data:")) or wrong.append(asked.url))
        page.goto(running.url + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
    running.wait_until_idle()


def ask(page, prompt, **settings):
    """Fills the form and presses the button."""
    expect(page.locator("#model option")).to_have_count(2)
    for name, value in settings.items():
        page.fill(f"#{name}", str(value))
    page.fill("#prompt", prompt)
    page.click("#go")


def finished(page):
    expect(page.locator("#go")).to_be_enabled()
    return page.locator(".answer .text").all_inner_texts()


def test_a_completion_streams_into_the_page(visit, running):
    page = visit()
    ask(page, "The cat", max_tokens=400, temperature=0)
    lengths = set()
    while page.locator("#go").is_disabled():
        lengths.add(len(page.locator(".answer .text").text_content()))
        page.wait_for_timeout(20)
    assert len(lengths) > 2  # it grew while it was made
    expected = running.worker.lm.generate("The cat", 400, Sampling(temperature=0))
    assert page.locator(".answer .text").text_content() == "The cat" + expected
    expect(page.locator(".answer h2")).to_contain_text(re.compile(r"first.*400 tokens, \d+/s"))


def test_the_stop_button_ends_an_answer_and_frees_its_slot(visit, running):
    page, before = visit(), running.worker.counts["cancelled"]
    ask(page, "The cat", max_tokens=4000)
    expect(page.locator("[data-tip]").nth(20)).to_be_attached()
    place = page.locator("#stop").bounding_box()
    expect(page.locator("[data-tip]").nth(100)).to_be_attached()
    assert page.locator("#stop").bounding_box() == place  # it does not flee from the pointer as the text grows
    assert running.worker.n_busy == 1
    page.click("#stop")
    expect(page.locator("#go")).to_be_enabled()
    running.wait_until_idle()
    assert running.worker.counts["cancelled"] == before + 1
    said = page.locator(".answer .text").text_content()
    assert said.startswith("The cat") and len(said) > 20  # what came stays


def test_hovering_over_a_token_shows_what_it_was_chosen_from(visit):
    page = visit()
    ask(page, "The cat", max_tokens=12)
    finished(page)
    tip = page.locator("#tip")
    expect(tip).to_be_hidden()
    page.locator("[data-tip]").nth(3).hover()
    expect(tip).to_be_visible()
    shares = [float(share) for share in re.findall(r"^ +([\d.]+) %", tip.text_content(), re.MULTILINE)]
    assert len(shares) >= 5 and shares[:5] == sorted(shares[:5], reverse=True) and sum(shares[:5]) <= 100.3
    page.locator("#prompt").hover()
    expect(tip).to_be_hidden()


def test_two_checkpoints_answer_side_by_side(visit):
    page = visit()
    expect(page.locator("#model option")).to_have_count(2)
    page.select_option("#other", "second")
    ask(page, "The cat", max_tokens=30, temperature=0)
    first, second = finished(page)
    assert first != second
    left, right = (card.bounding_box() for card in page.locator(".answer").all())
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    assert page.locator(".answer h2").all_inner_texts()[1].startswith("second")


def test_a_chat_keeps_what_was_said(visit):
    page = visit()
    page.click("#tab-chat")
    ask(page, "Good morning", max_tokens=8)
    finished(page)
    ask(page, "And you?", max_tokens=8)
    (told,) = finished(page)
    assert re.match(r"user\s+Good morning\s+assistant\s.*user\s+And you\?\s+assistant\s", told, re.DOTALL)
    page.click("#clear")
    expect(page.locator(".answer")).to_have_count(0)


def test_a_mistake_is_told_in_the_page_not_in_a_riddle(chromium, running):
    page = chromium.new_page()  # not through `visit`: a browser reports every answer of 400 as an error
    page.goto(running.url)
    ask(page, "ß" * 4000)
    expect(page.locator(".error")).to_contain_text("4096")
    expect(page.locator("#go")).to_be_enabled()
    page.close()


PAYLOADS = (
    "<script>hit()</script>",
    "<img src=x onerror=hit()>",
    "<svg onload=hit()>",
    "<iframe srcdoc='<script>parent.hit()</script>'></iframe>",
    "</textarea><script>hit()</script>",
    "javascript:hit()",
    "<a href='javascript:hit()' autofocus onfocus=hit()>a</a>",
    "${hit()} {{hit()}} `;hit()//",
)


@pytest.mark.parametrize("place", ["#tab-complete", "#tab-chat"])
def test_nothing_that_is_said_is_ever_run(visit, place):
    page, hits = visit(), []
    page.expose_function("hit", lambda: hits.append(place))
    page.click(place)
    for payload in PAYLOADS:
        ask(page, payload, max_tokens=1)
        finished(page)
        assert payload in page.locator(".answer .text").text_content()
    assert hits == [] and page.locator(".answer :is(script, img, svg, iframe, a)").count() == 0


def test_a_run_is_shown_and_grows_while_one_looks(visit, runs):
    page = visit("/page/runs.html")
    expect(page.locator("#latest")).to_contain_text("step 39")
    expect(page.locator("#latest")).to_contain_text("0.900 bits per byte")
    expect(page.locator("#samples")).to_contain_text("The cat sees <b>milk</b>.")
    assert page.locator("svg .band").count() == 1
    before = len(page.locator("svg .loss").get_attribute("points").split())
    record(runs, {"kind": "train", "step": 40, "tokens": 40_000, "loss": 1.5})
    expect(page.locator("#latest")).to_contain_text("step 40, loss 1.500")
    assert len(page.locator("svg .loss").get_attribute("points").split()) == before + 1


def luminance(color):
    """Relative luminance of an rgb(...) colour (WCAG 2.2, definition)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_dark_and_light_can_both_be_read(visit):
    grounds = []
    for scheme in ("light", "dark"):
        page = visit(scheme=scheme)
        ask(page, "The cat", max_tokens=30)
        finished(page)
        style = "(e, name) => getComputedStyle(e)[name]"
        ground = luminance(page.locator("body").evaluate(style, "backgroundColor"))
        grounds.append(ground)
        for place in ("body", ".given", "label", "#status", "small", ".answer h2"):
            ink = luminance(page.locator(place).first.evaluate(style, "color"))
            contrast = (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)
            assert contrast >= 4.5, (scheme, place, contrast)
    assert grounds[0] > 0.8 and grounds[1] < 0.05


def test_a_phone_scrolls_down_only(visit):
    page = visit(viewport=PHONE)
    expect(page.locator("#model option")).to_have_count(2)
    page.select_option("#other", "second")
    ask(page, "a" * 90, max_tokens=40)
    finished(page)
    page.locator("[data-tip]").nth(5).hover()
    expect(page.locator("#tip")).to_be_visible()
    box = page.locator("#tip").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
    runs_page = visit("/page/runs.html", viewport=PHONE)
    expect(runs_page.locator("#latest")).to_contain_text("step")
    for looked in (page, runs_page):
        assert looked.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_everything_can_be_done_from_the_keyboard(visit, running):
    page = visit()
    press = page.keyboard.press
    expect(page.locator("#model option")).to_have_count(2)
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("The cat")
    press("Control+Enter")
    expect(page.locator("[data-tip]").nth(5)).to_be_attached()
    press("Escape")
    finished(page)
    tabbed_to(page, ".text", "Shift+Tab")
    press("ArrowRight")
    press("ArrowRight")
    first = page.locator("#tip").text_content()
    press("ArrowRight")
    assert page.locator("#tip").is_visible() and page.locator("#tip").text_content() != first
    press("Escape")
    expect(page.locator("#tip")).to_be_hidden()
    tabbed_to(page, "#tab-chat", "Shift+Tab")
    press("Enter")
    page.keyboard.type("Hello")
    press("Enter")
    expect(page.locator(".turn")).to_contain_text("Hello")
    press("Escape")
    finished(page)
    tabbed_to(page, "#max_tokens", "Tab")
    tabbed_to(page, "nav a", "Shift+Tab")
    press("Enter")
    expect(page.locator("#run")).to_be_visible()


def tabbed_to(page, place, key):
    """Presses a key until something has the focus, which has to be seen."""
    for _ in range(30):
        page.keyboard.press(key)
        if page.evaluate("place => document.activeElement.matches(place)", place):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{place} has the focus and does not show it"
            return
    raise AssertionError(f"{place} is not reached with {key}")


def test_a_page_behind_a_key_says_so_and_goes_on_with_it(chromium, runs):
    made = Running({"first": endless(0)}, key="secret-1", runs=runs)
    context = chromium.new_context(viewport=DESK)
    page = context.new_page()
    page.goto(made.url)
    expect(page.locator("#status")).to_contain_text("API key")
    page.fill("#key", "secret-1")
    page.keyboard.press("Tab")
    expect(page.locator("#model option")).to_have_count(1)
    page.click("nav a")
    expect(page.locator("#latest")).to_contain_text("step")
    page.reload()
    expect(page.locator("#latest")).to_contain_text("step")
    assert "secret" not in page.url
    context.close()
    made.end()
