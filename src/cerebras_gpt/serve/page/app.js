"use strict";
const state = { chat: false, turns: [], abort: null };

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function loadModels() {
  const answer = await fetch("/v1/models", { headers: headers() });
  const body = await answer.json();
  if (!answer.ok) { $("status").textContent = body.error.message; return; }
  $("model").replaceChildren(...body.data.map((m) => new Option(m.id, m.id)));
  $("other").replaceChildren(new Option("nothing", ""), ...body.data.map((m) => new Option(m.id, m.id)));
  $("status").textContent = "";
}

function settings(model) {
  const stops = $("stops").value;
  return {
    model, stream: true, stream_options: { include_usage: true },
    temperature: Number($("temperature").value), top_p: Number($("top_p").value), top_k: Number($("top_k").value),
    max_tokens: Number($("max_tokens").value), seed: Number($("seed").value), ...(stops ? { stop: [stops] } : {}),
  };
}

function shade(logprob) {
  const p = Math.exp(logprob);
  return p > 0.5 ? "token" : p > 0.2 ? "token p1" : p > 0.05 ? "token p2" : p > 0.01 ? "token p3" : "token p4";
}

/* What each token was chosen from; a piece of text may hold several tokens, so it is shown for the piece. */
function tokens(choice) {
  const found = choice.logprobs;
  if (!found) return [];
  if (found.content) return found.content.map((t) => ({ token: t.token, logprob: t.logprob, top: t.top_logprobs.map((o) => [o.token, o.logprob]) }));
  return found.tokens.map((token, i) => ({ token, logprob: found.token_logprobs[i], top: Object.entries(found.top_logprobs[i] || {}).sort((a, b) => b[1] - a[1]) }));
}

function shown(token) {
  return token.startsWith("bytes:") ? token.slice(6) : JSON.stringify(token); // half a character has no other name
}

function words(list) {
  return list.map((t) => `${shown(t.token)}  ${(100 * Math.exp(t.logprob)).toFixed(1)} %\n` +
    t.top.map(([token, value]) => `  ${(100 * Math.exp(value)).toFixed(1).padStart(5)} %  ${shown(token)}`).join("\n")).join("\n");
}

function showTip(span, x, y) {
  const tip = $("tip");
  tip.textContent = span.dataset.tip;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - box.width - 4))}px`;
  tip.style.top = `${Math.max(4, y + 16 + box.height > innerHeight ? y - box.height - 8 : y + 16)}px`;
}

function hideTip() {
  $("tip").hidden = true;
  document.querySelector(".token.at")?.classList.remove("at");
}

/* The arrow keys go from token to token of the answer that has the focus. */
function walk(text, by) {
  const list = [...text.querySelectorAll("[data-tip]")];
  if (!list.length) return;
  const now = list.findIndex((span) => span.classList.contains("at"));
  const span = list[Math.max(0, Math.min(list.length - 1, now < 0 ? 0 : now + by))];
  hideTip();
  span.classList.add("at");
  span.scrollIntoView({ block: "nearest" });
  const box = span.getBoundingClientRect();
  showTip(span, box.left, box.bottom - 8);
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

function card(model) {
  const box = element("article", "answer"), title = element("h2"), speed = element("span"), text = element("p", "text");
  text.tabIndex = 0;
  text.setAttribute("aria-label", `${model}; the arrow keys show what each token was chosen from`);
  text.setAttribute("role", "group");
  title.append(element("span", "", model), speed);
  box.append(title, text);
  return { box, text, speed };
}

/* Scrolls to the end once a frame: asking for the height after each token would lay the whole text out each time. */
function follow(text) {
  text.frame ||= requestAnimationFrame(() => { text.frame = 0; text.scrollTop = text.scrollHeight; });
}

async function fill(into, body, path) {
  const began = performance.now();
  let made = 0, said = "";
  try {
    const answer = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal: state.abort.signal });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    for await (const event of events(answer)) {
      if (event.error) throw new Error(event.error.message);
      for (const choice of event.choices) {
        const list = tokens(choice), text = choice.delta ? choice.delta.content || "" : choice.text;
        made += list.length;
        said += text;
        const span = element("span", list.length ? shade(Math.min(...list.map((t) => t.logprob))) : "token", text);
        if (list.length) { span.dataset.tip = words(list); into.text.append(span); } else into.text.append(text);
      }
      follow(into.text);
      into.speed.textContent = `${made} tokens, ${(made / ((performance.now() - began) / 1000)).toFixed(0)}/s`;
    }
  } catch (error) {
    if (error.name !== "AbortError") into.text.append(element("span", "error", ` ${error.message}`));
  }
  return said;
}

function drawTurns(into) {
  for (const turn of state.turns) {
    const line = element("span", "turn");
    line.append(element("b", "", turn.role), `${turn.content}\n`);
    into.text.append(line);
  }
}

function runsNow(is) {
  const [from, to] = is ? [$("go"), $("stop")] : [$("stop"), $("go")];
  to.disabled = false;
  if (document.activeElement === from) to.focus(); // a disabled button would lose the focus
  from.disabled = true;
}

async function generate() {
  if (state.abort) return;
  const prompt = $("prompt").value, { chat, turns } = state;
  if (chat && !prompt.trim()) return;
  const models = [$("model").value, $("other").value].filter(Boolean);
  state.abort = new AbortController();
  runsNow(true);
  hideTip();
  if (chat) { turns.push({ role: "user", content: prompt }); $("prompt").value = ""; }
  const cards = models.map(card);
  $("answers").replaceChildren(...cards.map((c) => c.box));
  const said = await Promise.all(cards.map((into, i) => {
    if (chat) {
      drawTurns(into);
      into.text.append(element("b", "given", "assistant\n"));
      return fill(into, { ...settings(models[i]), messages: state.turns, logprobs: true, top_logprobs: 5 }, "/v1/chat/completions");
    }
    into.text.append(element("span", "given", prompt));
    return fill(into, { ...settings(models[i]), prompt, logprobs: 5 }, "/v1/completions");
  }));
  if (chat && said[0].trim()) turns.push({ role: "assistant", content: said[0].trim() });
  else if (chat) { turns.pop(); $("prompt").value ||= prompt; } // nothing was said: to be sent again
  state.abort = null;
  runsNow(false);
}

function stop() { if (state.abort) state.abort.abort(); }

function choose(chat) {
  state.chat = chat;
  $("tab-chat").setAttribute("aria-pressed", chat); $("tab-complete").setAttribute("aria-pressed", !chat);
  $("prompt-label").textContent = chat ? "Your message" : "Text to continue";
  $("go").textContent = chat ? "Send" : "Generate";
  $("hint").textContent = chat ? "Enter sends, Shift+Enter breaks the line, Esc stops" : "Ctrl+Enter generates, Esc stops";
  $("prompt").focus();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); generate(); });
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", () => { stop(); state.turns = []; $("answers").replaceChildren(); });
$("tab-chat").addEventListener("click", () => choose(true));
$("tab-complete").addEventListener("click", () => choose(false));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { stop(); hideTip(); }
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by && event.target.matches(".text")) { event.preventDefault(); walk(event.target, by); }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (state.chat && event.target === $("prompt") && !event.shiftKey))) { event.preventDefault(); generate(); }
});
for (const kind of ["pointermove", "pointerdown"]) $("answers").addEventListener(kind, (event) => {
  const span = event.target.closest("[data-tip]");
  if (span) showTip(span, event.clientX, event.clientY); else hideTip();
});
$("answers").addEventListener("pointerleave", hideTip);
$("answers").addEventListener("focusout", hideTip);
useKey(loadModels);
