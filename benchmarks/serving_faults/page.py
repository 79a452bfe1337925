"""S10: payloads in what a person types and in what the model says, on the page in a real browser: none is ever run."""

import itertools
import shutil

from benchmarks.serving_faults.asking import Client
from benchmarks.serving_faults.target import Target, tiny
from cerebras_gpt.generate.answer import Answer

CALLS = ("hit()", "window.hit()", "top['h'+'it']()", "eval('hit()')", "(0,hit)``")
TAGS = (
    "<script>{}</script>",
    "<ScRiPt >{}</sCrIpT >",
    "<img src=x onerror={}>",
    "<img src=x onerror=\"{}\"//",
    "<svg onload={}>",
    "<svg><script>{}</script></svg>",
    "<svg/onload={}//",
    "<body onload={}>",
    "<iframe srcdoc=\"<script>parent.{}</script>\"></iframe>",
    "<iframe src=\"javascript:parent.{}\"></iframe>",
    "<a href=\"javascript:{}\" autofocus onfocus={}>a</a>",
    "<details open ontoggle={}>a",
    "<input autofocus onfocus={}>",
    "<select autofocus onfocus={}>",
    "<video><source onerror={}></video>",
    "<audio src=x onerror={}>",
    "<object data=\"javascript:{}\">",
    "<embed src=\"javascript:{}\">",
    "<math><mi xlink:href=\"javascript:{}\">a</mi></math>",
    "<style>@import 'javascript:{}';</style>",
    "<link rel=stylesheet href=\"javascript:{}\">",
    "<meta http-equiv=refresh content=\"0;url=javascript:{}\">",
    "<base href=\"javascript:{}//\">",
    "<form action=\"javascript:{}\"><button autofocus>a</button></form>",
    "<template><script>{}</script></template>",
    "<marquee onstart={}>a</marquee>",
    "</textarea><script>{}</script>",
    "</title></style><script>{}</script>",
    "--><script>{}</script><!--",
    "]]><script>{}</script>",
    "\"><script>{}</script>",
    "' onmouseover='{}' x='",
    "`${{{}}}`",
    "{{{{{}}}}}",
    "javascript:{}",
    "data:text/html,<script>parent.{}</script>",
    "\\u003cscript\\u003e{}\\u003c/script\\u003e",
    "&lt;script&gt;{}&lt;/script&gt;",
    "<scr<script>ipt>{}</scr</script>ipt>",
    "<noscript><p title=\"</noscript><img src=x onerror={}>\">",
)  # fmt: skip
PAYLOADS = [tag.replace("{}", call) for tag, call in itertools.product(TAGS, CALLS)]
ELEMENTS = (
    "script, img, svg, iframe, a, object, embed, style, link, meta, base, form, video, audio, input, details, math"
)


def echoes(worker):
    """In the child: the model says, at its end, what it was given."""
    plain, decode = Answer.pull, worker.lm.tokenizer.decode

    def pull(self):
        piece = plain(self)
        return piece._replace(text=piece.text + decode(self.continuation.request.ids)) if piece.reason else piece

    Answer.pull = pull


def shown(page, payload):
    """What is wrong with the page after a payload was typed and said."""
    page.fill("#prompt", payload)
    page.click("#go")
    page.wait_for_function("() => !document.querySelector('#go').disabled")
    text = page.locator(".answer .text").last.text_content()
    found = [] if text.count(payload) >= 2 else [f"shown {text.count(payload)} times: {text[-200:]!r}"]
    made = page.locator(f".answer :is({ELEMENTS})").count()
    return found + ([f"{made} elements were made"] if made else [])


def campaign(report, folder, seed, numbers):
    """Each payload typed and said, in the playground and in the chat; `seed` has nothing to choose."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        report.figures["left out"] = "no Chromium on the path"
        return
    from playwright.sync_api import sync_playwright

    wrong = []
    with Target(folder, plant=echoes, lm=tiny(4096)) as target, sync_playwright() as play:
        Client(target.port).waited()
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])  # it sees only our own page
        for place in ("#tab-complete", "#tab-chat"):
            page = browser.new_page()
            page.expose_function("hit", lambda: wrong.append("run"))
            page.on("console", lambda told: wrong.append(told.text) if told.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("dialog", lambda dialog: wrong.append(dialog.message))
            home = f"http://127.0.0.1:{target.port}"
            page.on(
                "request", lambda asked, home=home: asked.url.startswith((home, "data:")) or wrong.append(asked.url)
            )
            page.goto(home)
            page.click(place)
            page.fill("#max_tokens", "1")
            for number in [number for number in numbers if number < len(PAYLOADS)]:
                if place == "#tab-chat" and page.locator("#clear").count():
                    page.click("#clear")
                problems = shown(page, PAYLOADS[number])
                report.case(f"{number} {place}", problems + wrong)
                wrong.clear()
            page.close()
        browser.close()
        report.case("end", target.end())
    report.figures |= {"payloads": len(PAYLOADS), "seed": seed}
