"use strict";
const $ = (id) => document.getElementById(id);
const state = { chat: false, turns: [], abort: null };

function headers() {
  const key = $("key").value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

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

function words(list) {
  return list.map((t) => `${JSON.stringify(t.token)}  ${(100 * Math.exp(t.logprob)).toFixed(1)} %\n` +
    t.top.map(([token, value]) => `  ${(100 * Math.exp(value)).toFixed(1).padStart(5)} %  ${JSON.stringify(token)}`).join("\n")).join("\n");
}

function showTip(event, span) {
  const tip = $("tip");
  tip.textContent = span.dataset.tip;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 4))}px`;
  tip.style.top = `${Math.max(4, event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 8 : event.clientY + 16)}px`;
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
  title.append(element("span", "", model), speed);
  box.append(title, text);
  return { box, text, speed };
}

async function fill(model, into, body, path) {
  const began = performance.now();
  let made = 0, said = "";
  try {
    const answer = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal: state.abort.signal });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    for await (const event of events(answer)) {
      if (event.error) throw new Error(event.error.message);
      for (const choice of event.choices) {
        const list = tokens(choice), text = state.chat ? choice.delta.content || "" : choice.text;
        made += list.length;
        said += text;
        const span = element("span", list.length ? shade(Math.min(...list.map((t) => t.logprob))) : "token", text);
        if (list.length) { span.dataset.tip = words(list); into.text.append(span); } else into.text.append(text);
        into.text.scrollTop = into.text.scrollHeight;
      }
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

async function generate() {
  if (state.abort) return;
  const prompt = $("prompt").value;
  if (state.chat && !prompt.trim()) return;
  const models = [$("model").value, $("other").value].filter(Boolean);
  state.abort = new AbortController();
  $("go").disabled = true; $("stop").disabled = false;
  if (state.chat) { state.turns.push({ role: "user", content: prompt }); $("prompt").value = ""; }
  const cards = models.map(card);
  $("answers").replaceChildren(...cards.map((c) => c.box));
  const said = await Promise.all(cards.map((into, i) => {
    if (state.chat) {
      drawTurns(into);
      into.text.append(element("b", "given", "assistant\n"));
      return fill(models[i], into, { ...settings(models[i]), messages: state.turns, logprobs: true, top_logprobs: 5 }, "/v1/chat/completions");
    }
    into.text.append(element("span", "given", prompt));
    return fill(models[i], into, { ...settings(models[i]), prompt, logprobs: 5 }, "/v1/completions");
  }));
  if (state.chat) state.turns.push({ role: "assistant", content: said[0].trim() });
  state.abort = null;
  $("go").disabled = false; $("stop").disabled = true;
}

function stop() { if (state.abort) state.abort.abort(); }

function choose(chat) {
  state.chat = chat;
  $("tab-chat").setAttribute("aria-pressed", chat); $("tab-complete").setAttribute("aria-pressed", !chat);
  $("prompt-label").textContent = chat ? "Your message" : "Text to continue";
  $("go").textContent = chat ? "Send" : "Generate";
  $("prompt").focus();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); generate(); });
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", () => { stop(); state.turns = []; $("answers").replaceChildren(); });
$("tab-chat").addEventListener("click", () => choose(true));
$("tab-complete").addEventListener("click", () => choose(false));
$("key").addEventListener("change", loadModels);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (state.chat && event.target === $("prompt") && !event.shiftKey))) { event.preventDefault(); generate(); }
});
$("answers").addEventListener("pointermove", (event) => {
  const span = event.target.closest("[data-tip]");
  if (span) showTip(event, span); else $("tip").hidden = true;
});
$("answers").addEventListener("pointerleave", () => { $("tip").hidden = true; });
loadModels();
