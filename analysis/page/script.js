"use strict";
// Draws the figures for the reader's choices and fills the tables; the data are in #data (embed.py says how).
const SIGNS = { circle: "●", square: "■", "triangle-up": "▲", diamond: "◆", "triangle-down": "▼", cross: "✚",
  "triangle-right": "▶", "triangle-left": "◀" };
const INK = { color: "currentColor", labelColor: "currentColor", titleColor: "currentColor", gridColor: "currentColor",
  domainColor: "currentColor", tickColor: "currentColor", gridOpacity: 0.12, domainOpacity: 0.5, tickOpacity: 0.5,
  labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal" };
const CONFIG = { background: null, axis: INK, view: { stroke: null }, font: "system-ui, 'DejaVu Sans', sans-serif" };
const MOST = 36; // panels of a figure at a time
const PAGE = 200; // rows of the large table at a time

const store = await unpacked(document.getElementById("data").textContent);
const frames = Object.fromEntries(Object.entries(store.frames).map(([name, table]) => [name, rowsOf(table)]));
const choices = document.querySelector(".choices");
const hidden = new Set(); // names in the legends that were switched off
let views = {}, turn = 0;

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function rowsOf(table) {
  const columns = Object.entries(table.columns).map(([name, column]) =>
    [name, column.of ? (at) => column.of[column.at[at]] : (at) => column[at]]);
  return Array.from({ length: table.n }, (_, at) => Object.fromEntries(columns.map(([name, value]) => [name, value(at)])));
}

function make(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const number = (value) => typeof value !== "number" ? (value ?? "–")
  : Number.isInteger(value) ? value.toLocaleString("en")
  : Math.abs(value) < 0.001 ? value.toExponential(2).replace(/\.?0+e/, "e") : value.toFixed(3);

// --- choices ---------------------------------------------------------------------------------------------------

/** Whether a row is among what the reader chose; a row that says nothing of a choice belongs to all of its options. */
function fits(row, name) {
  const value = choices.elements[name]?.value;
  if (value === undefined || value === "*" || row[name] === undefined || row[name] === "" || row[name] === null) return true;
  return value === "usual" ? row[`usual_${name}`] !== 0 : row[name] === value;
}

function chosenRows(figure) {
  let rows = frames[figure.frame].filter((row) => figure.by.every((name) => fits(row, name)));
  if (figure.relations.length) {
    rows = rows.filter((row) => row.stage === "base" || figure.relations.includes(row.relation));
    const tasks = new Set(rows.filter((row) => row.stage !== "base").map((row) => row.task));
    rows = rows.filter((row) => tasks.has(row.task));
  }
  return rows;
}

const isChosen = (row) => ![row.series, row.prompt, row.verdict, row.what].some((name) => hidden.has(name));

/** Whether the rows of a panel have a number, and of formats or shots more than one. */
function drawable(figure, rows) {
  const there = rows.filter((row) => row[figure.value] !== null);
  return there.length > 0 && (!figure.several || new Set(there.map((row) => row[figure.several])).size > 1);
}

function words(figure) {
  const said = [...choices.querySelectorAll("select")].filter((each) => figure.by.includes(each.name))
    .map((each) => `${each.labels[0].firstChild.textContent.trim()}: ${each.selectedOptions[0].textContent}`);
  return said.join(" · ");
}

// --- figures ---------------------------------------------------------------------------------------------------

/** Calls `change` with every encoding of a Vega-Lite specification that has a field, and the name of its channel. */
function encodings(part, change, channel = "") {
  if (Array.isArray(part)) part.forEach((each) => encodings(each, change));
  else if (part && typeof part === "object") {
    if (part.field) change(part, channel);
    for (const [name, each] of Object.entries(part)) encodings(each, change, name);
  }
}

/** Lays the axis of pre-training out as the reader chose: by a scale of tokens, or its checkpoints evenly. */
function across(axis, ticks) {
  const kind = choices.elements.across?.value;
  if (kind === "even") {
    const short = "split(datum.label, '@')[1] || datum.label";
    Object.assign(axis, { field: "checkpoint", type: "ordinal", sort: store.checkpoints, title: "checkpoint", scale: {},
      axis: { labelExpr: short, labelAngle: -30, labelOverlap: true } });
  } else {
    axis.axis = { ...axis.axis, values: ticks };
    axis.scale = { ...axis.scale, type: kind, domain: [ticks[0], ticks.at(-1)] };
    axis.title = axis.title.replace(/\(.*\)/, `(${kind})`);
  }
}

/** The figure's specification for these rows: only colours that occur, a tick at every checkpoint, a common scale. */
function fitted(figure, rows, every, many) {
  const spec = structuredClone(figure.spec);
  const times = every.flatMap((row) => [row[store.axis], row[`${store.axis}_before`]]).filter((value) => typeof value === "number");
  const ticks = [...new Set(times)].sort((a, b) => a - b);
  const ends = every.flatMap((row) => [row.low ?? row.value, row.high ?? row.value, row.chance]).filter((value) => typeof value === "number");
  const even = choices.elements.across?.value === "even";
  encodings(spec, (each, channel) => {
    if (each.scale?.domain && each.scale?.range) {
      const there = new Set(rows.map((row) => row[each.field]));
      const kept = each.scale.domain.map((name, at) => [name, each.scale.range[at]]).filter(([name]) => there.has(name));
      each.scale = { ...each.scale, domain: kept.map(([name]) => name), range: kept.map(([, look]) => look) };
      each.legend = null;
    }
    if (each.field === store.axis && each.axis?.values) across(each, ticks);
    if (even && each.field === `${store.axis}_before`) each.field = "checkpoint_before";
    if (many && (channel === "x" || channel === "y") && each.title) each.title = null;
    if (figure.shared && channel === "y") each.scale = { ...each.scale, domain: [Math.min(...ends), Math.max(...ends)] };
  });
  for (const each of spec.params ?? []) if (each.name === "intervals") each.value = choices.elements.intervals.checked;
  const height = figure.spec.height ?? 190;
  return { ...spec, width: "container", height, autosize: { type: "fit", contains: "padding" }, data: { values: rows }, config: CONFIG };
}

/** What the axes of many panels are, said once. */
function axes(figure) {
  const titles = {};
  encodings(figure.spec, (each, channel) => { if (["x", "y"].includes(channel) && each.title) titles[channel] ??= each.title; });
  return [titles.y && `vertical: ${titles.y}`, titles.x && `across: ${titles.x}`].filter(Boolean).join(", ");
}

async function draw(figure, mine) {
  const place = document.getElementById(`figure-${figure.key}`);
  const box = place.querySelector(".panels");
  const every = chosenRows(figure), rows = every.filter(isChosen), panels = new Map();
  for (const row of rows) {
    const name = figure.panel.map((column) => row[column]).join(" · ");
    panels.set(name, [...(panels.get(name) ?? []), row]);
  }
  const full = [...panels].filter(([, some]) => drawable(figure, some)), drawn = full.slice(0, MOST);
  place.querySelector(".choice").textContent = words(figure);
  place.querySelector(".axes").textContent = drawn.length > 1 ? axes(figure) : "";
  legend(figure, place.querySelector(".legend"), every);
  (views[figure.key] ?? []).forEach((view) => view.finalize());
  views[figure.key] = [];
  place.querySelector(".numbers").rows = rows;
  place.querySelector(".numbers").open = false;
  box.replaceChildren();
  place.querySelectorAll(".left").forEach((each) => each.remove());
  box.classList.toggle("one", drawn.length === 1);
  if (!drawn.length) box.append(make("p", "Nothing was measured for this choice.", { class: "empty" }));
  if (full.length > MOST) {
    box.before(make("p", `${MOST} of ${full.length} panels; choose less to see the others.`, { class: "left" }));
  }
  for (const [name, some] of drawn) {
    const panel = make("div", null, { class: "panel", role: "img", "aria-label": `${figure.title}, ${name || "all"}` });
    const view = make("div", null, { class: "view" });
    panel.append(make("h4", name), view);
    box.append(panel);
    const made = await vegaEmbed(view, fitted(figure, some, rows, drawn.length > 1), { renderer: "svg", actions: false });
    if (mine !== turn) return made.view.finalize(); // a later choice draws this figure anew
    views[figure.key].push(made.view);
  }
}

/** One legend per figure, whose names switch curves off and on; the kinds of dashes after them. */
function legend(figure, box, rows) {
  const found = {};
  encodings(figure.spec, (each, channel) => {
    if (["color", "shape", "strokeDash"].includes(channel) && each.scale?.range) found[channel] = each;
  });
  const there = (each, name) => rows.some((row) => row[each.field] === name);
  box.replaceChildren();
  found.color?.scale.domain.forEach((name, at) => {
    if (!there(found.color, name)) return;
    const item = make(found.color.field === "checkpoint" ? "span" : "button", null, { type: "button", "aria-pressed": !hidden.has(name) });
    const sign = make("b", SIGNS[found.shape?.scale.range[at]] ?? "●", { "aria-hidden": "true" });
    sign.style.color = found.color.scale.range[at];
    item.append(sign, name);
    item.addEventListener("click", () => {
      hidden.has(name) ? hidden.delete(name) : hidden.add(name);
      redraw().then(() => box.querySelectorAll("button").forEach((each) => each.textContent.endsWith(name) && each.focus()));
    });
    box.append(item);
  });
  const kinds = (found.strokeDash?.scale.domain ?? []).filter((name) => there(found.strokeDash, name) && name !== "BASE");
  for (const name of kinds) {
    const dash = found.strokeDash.scale.range[found.strokeDash.scale.domain.indexOf(name)].join(" ");
    const item = make("span", name);
    item.insertAdjacentHTML("afterbegin", `<svg width="30" height="6" aria-hidden="true"><line x2="30" y1="3" y2="3" stroke="currentColor" stroke-width="2" stroke-dasharray="${dash}"/></svg>`);
    box.append(item);
  }
}

/** Draws the figures that follow one of the choices named, those in sight first; a later call ends an earlier one. */
async function redraw(...names) {
  const mine = ++turn;
  const near = (figure) => Math.abs(document.getElementById(`figure-${figure.key}`).getBoundingClientRect().top);
  const figures = store.figures.filter((figure) => !names.length || figure.stale || names.includes("across") || figure.by.some((name) => names.includes(name)));
  figures.forEach((figure) => { figure.stale = true; });
  for (const figure of figures.sort((a, b) => near(a) - near(b))) {
    if (mine !== turn) return;
    await draw(figure, mine);
    if (mine === turn) figure.stale = false;
  }
  document.body.dataset.ready = "yes";
}

// --- tables ----------------------------------------------------------------------------------------------------

/** A table of rows: `columns` are [name, heading]; `sorted` is called with a column's name. */
function fill(table, columns, rows, sort, sorted) {
  const head = make("tr");
  for (const [name, heading] of columns) {
    const cell = make("th", null, { scope: "col", "aria-sort": sort.name === name ? (sort.down ? "descending" : "ascending") : "none" });
    if (rows.some((row) => typeof row[name] === "number")) cell.className = "number";
    const button = make("button", heading, { type: "button" });
    button.addEventListener("click", () => { sorted(name); table.querySelector(`thead th:nth-child(${columns.findIndex((each) => each[0] === name) + 1}) button`).focus(); });
    cell.append(button);
    head.append(cell);
  }
  const body = rows.map((row) => {
    const line = make("tr");
    for (const [name] of columns) line.append(make("td", number(row[name]), typeof row[name] === "number" ? { class: "number" } : {}));
    return line;
  });
  table.replaceChildren(make("thead"), make("tbody"));
  table.tHead.append(head);
  table.tBodies[0].append(...body);
}

function compare(a, b) {
  if (a === null || a === undefined || a === "") return b === null || b === undefined || b === "" ? 0 : 1; // empty ones last
  if (b === null || b === undefined || b === "") return -1;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function ordered(rows, sort) {
  if (!sort.name) return rows;
  const empty = (row) => row[sort.name] === null || row[sort.name] === "";
  return [...rows].sort((a, b) => compare(a[sort.name], b[sort.name]) * (sort.down && !empty(a) && !empty(b) ? -1 : 1));
}

const turned = (sort, name) => ({ name, down: sort.name === name ? !sort.down : false });

/** Makes a table that came with the page sortable by its text, numbers as numbers. */
function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((cell, at) => {
    const button = make("button", cell.textContent, { type: "button" });
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") === "ascending";
      const value = (row) => {
        const text = row.cells[at]?.textContent.trim() ?? "", found = parseFloat(text.replace(/^< |,/g, "").replace("−", "-"));
        return text === "–" ? null : /^[+<−-]?\s?[\d.]/.test(text) && !Number.isNaN(found) ? found : text;
      };
      const lines = [...table.tBodies[0].rows].map((row) => ({ row, value: value(row) }));
      for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", "none");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      table.tBodies[0].append(...ordered(lines, { name: "value", down }).map((each) => each.row));
    });
  });
}

/** What a figure shows as a table, for those who do not hover. */
function numbersOf(figure, rows) {
  const names = ["task", "series", "relation", "verdict", "what", "line", "checkpoint_before", "checkpoint", "prompt", "shots", "seed", figure.value, "low", "high", "chance", "n", "seeds", "missing"];
  const used = names.filter((name) => rows.some((row) => row[name] !== undefined && row[name] !== null && row[name] !== ""));
  return used.map((name) => [name, name]);
}

/** The large table: every word of the filter must fit; `column=value`, `column>number`, `column<number` ask one column. */
function everyRow() {
  const rows = rowsOf(store.rows), box = document.querySelector("#rows"), more = box.querySelector(".more");
  const columns = Object.keys(store.rows.columns).filter((name) => new Set(rows.map((row) => row[name])).size > 1 || rows.length < 2)
    .map((name) => [name, name.replaceAll("_", " ")]);
  const texts = rows.map((row) => columns.map(([name]) => row[name] ?? "").join(" ").toLowerCase());
  let sort = {}, length = PAGE, found = [];
  const test = (word) => {
    const [, name, sign, value] = word.match(/^([\w-]+)([=<>])(.+)$/) ?? [];
    const column = name?.replaceAll("-", "_").replace("tuned_on", "dataset");
    if (!column || !(column in store.rows.columns)) return (row, at) => texts[at].includes(word);
    if (sign === "=") return (row) => typeof row[column] === "number" ? row[column] === Number(value)
      : String(row[column] ?? "").toLowerCase() === value;
    return (row) => row[column] !== null && (sign === ">" ? row[column] > Number(value) : row[column] < Number(value));
  };
  const show = () => {
    fill(box.querySelector("table"), columns, found.slice(0, length), sort, (name) => { sort = turned(sort, name); search(); });
    box.querySelector("output").textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    more.hidden = found.length <= length;
  };
  const search = () => {
    const tests = box.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    found = ordered(rows.filter((row, at) => tests.every((each) => each(row, at))), sort);
    show();
  };
  box.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  box.querySelector("input").addEventListener("input", () => { length = PAGE; search(); });
  more.addEventListener("click", () => { length += PAGE; show(); });
  search();
}

document.querySelectorAll("table.sortable").forEach(sortable);
everyRow();
for (const figure of store.figures) {
  const box = document.querySelector(`#figure-${figure.key} .numbers`);
  let sort = {};
  const show = () => box.open && fill(box.querySelector("table"), numbersOf(figure, box.rows), ordered(box.rows, sort).slice(0, 500), sort,
    (name) => { sort = turned(sort, name); show(); });
  box.addEventListener("toggle", show);
}
addEventListener("beforeprint", () => document.querySelectorAll(".findings details").forEach((each) => { each.open = true; }));
choices.addEventListener("submit", (event) => event.preventDefault());
choices.addEventListener("change", (event) => {
  if (event.target.name !== "intervals") redraw(event.target.name);
  else Object.values(views).flat().forEach((view) => view.signal("intervals", event.target.checked).run());
});
await redraw();
