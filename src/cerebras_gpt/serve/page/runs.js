"use strict";
const SPACE = { left: 46, right: 790, top: 10, bottom: 330 };

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function draw(told) {
  const measured = told.held_out.filter((p) => p[2] !== null), band = told.predicted;
  const bits = measured.length ? measured.at(-1)[2] / measured.at(-1)[1] : 1; // bits per byte of a nat per token
  const curves = [[told.train.filter((p) => p[1] !== null).map((p) => [p[0], p[1] * bits]), "loss"], [measured.map((p) => [p[0], p[2]]), "held"]];
  const points = curves.flatMap((curve) => curve[0]);
  const svg = $("curve");
  svg.replaceChildren();
  if (!points.length) return;
  const losses = points.map((p) => p[1]).concat(band ? [band.low, band.high] : []);
  const most = Math.max(...points.map((p) => p[0])), low = Math.min(...losses), high = Math.max(...losses);
  const x = (tokens) => SPACE.left + (SPACE.right - SPACE.left) * tokens / most;
  const y = (loss) => SPACE.bottom - (SPACE.bottom - SPACE.top) * (loss - low) / (high - low || 1);
  const [unit, letter] = most >= 2e6 ? [1e6, "M"] : [1e3, "k"];
  for (let i = 0; i <= 4; i++) {
    const loss = low + (high - low) * i / 4;
    svg.append(shape("line", { class: "axis", x1: SPACE.left, x2: SPACE.right, y1: y(loss), y2: y(loss) }));
    svg.append(shape("text", { x: 4, y: y(loss) + 4 }, loss.toFixed(2)));
    svg.append(shape("text", { x: x(most * i / 4) - (i === 4 ? 26 : 14), y: 350 }, `${(most * i / 4 / unit).toFixed(1)}${letter}`));
  }
  if (band) svg.append(shape("rect", { class: "band", x: SPACE.left, width: SPACE.right - SPACE.left, y: y(band.high), height: Math.max(1, y(band.low) - y(band.high)) }));
  for (const [rows, name] of curves) {
    const line = rows.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ");
    svg.append(shape("polyline", { class: name, points: line }));
  }
  for (const point of measured) svg.append(shape("circle", { cx: x(point[0]), cy: y(point[2]), r: 3 }));
}

function describe(told) {
  const row = told.latest, held = told.held_out.at(-1);
  $("latest").textContent = row ? `step ${row.step.toLocaleString()}, loss ${Number(row.loss).toFixed(3)}, ${Math.round(row.tokens_per_second).toLocaleString()} tokens/s` +
    (held ? `; held out ${Number(held[1]).toFixed(3)}, ${Number(held[2]).toFixed(3)} bits per byte` : "") : "not begun";
  $("samples").replaceChildren(...told.samples.reverse().map((sample) => {
    const box = document.createElement("article"), title = document.createElement("h2"), text = document.createElement("p"), given = document.createElement("span");
    box.className = "run"; text.className = "text"; given.className = "given";
    title.textContent = `step ${sample.step}`; given.textContent = sample.prompt;
    text.append(given, sample.text); box.append(title, text);
    return box;
  }));
}

async function look() {
  if (!$("run").value) return;
  try {
    const answer = await fetch(`/runs/${$("run").value.split("/").map(encodeURIComponent).join("/")}`, { headers: headers() });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error.message);
    draw(told); describe(told);
    $("status").textContent = `read at ${new Date().toLocaleTimeString()}`;
  } catch (error) { $("status").textContent = error.message; }
}

async function begin() {
  const body = await (await fetch("/runs", { headers: headers() })).json();
  if (body.error) { $("status").textContent = body.error.message; return; }
  $("run").replaceChildren(...body.runs.map((name) => new Option(name, name)));
  if (!body.runs.length) $("status").textContent = "no runs; start the server with --show-runs FOLDER";
  look();
}
$("run").addEventListener("change", look);
setInterval(look, 3000);
useKey(begin);
