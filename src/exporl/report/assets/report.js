"use strict";
// Draws the charts of a report with uPlot from the data in the page. What is hidden, and how axes
// are drawn, is kept while the browser shows the page again.

const page = JSON.parse(document.getElementById("data").textContent);
const KEPT = "exporl:" + location.pathname;
const state = Object.assign({ hidden: page.hidden, modes: {} }, remembered());
const hidden = new Set(state.hidden);
const DASHES = [[], [8, 5], [2, 4], [10, 4, 2, 4]];
const drawn = new Map(); // element of a chart -> its plot, or null where it is out of date

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) || {};
  } catch {
    return {}; // a browser may refuse storage to files
  }
}

function remember() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ hidden: [...hidden], modes: state.modes }));
  } catch {
    // then the next view begins as the first
  }
}

// ---- numbers and colours

function short(value) {
  const size = Math.abs(value);
  for (const [limit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= limit && size < 1e12) return +(value / limit).toPrecision(4) + letter;
  }
  return String(+value.toPrecision(4));
}

function format(chart, value) {
  return chart.percent ? +(100 * value).toFixed(1) + "%" : short(value);
}

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function colorOf(line) {
  return typeof line.color === "number" ? `--c${line.color % 8}` : `--${line.color}`;
}

// ---- which lines, and their columns

function isShown(chart, line) {
  const keys = ["group:" + line.group, "run:" + line.run, "kind:" + line.kind];
  return ![...keys, `line:${chart.id}:${line.name}`].some((key) => hidden.has(key));
}

function xOf(line, mode) {
  return mode.time && line.seconds ? line.seconds.map((s) => s / 60) : page.axes[line.x];
}

// The points of a line that its axes can show: a logarithm has no place for 0 and less.
function pointsOf(line, mode) {
  const x = xOf(line, mode);
  const fits = (value) => !mode.logY || value > 0;
  const names = line.low && !hidden.has("kind:intervals") ? ["y", "low", "high"] : ["y"];
  const rows = [...x.keys()].filter((i) => (!mode.logX || x[i] > 0) && fits(line.y[i]));
  const shown = (name, i) => (fits(line[name][i]) ? line[name][i] : line.y[i]);
  const columns = names.map((name) => rows.map((i) => shown(name, i)));
  return [rows.map((i) => x[i]), ...columns];
}

// One horizontal axis for clouds of points, where several may lie above each other.
function joinedClouds(tables) {
  const rows = tables.flatMap(([x, y], of) => x.map((value, i) => [value, y[i], of]));
  rows.sort((a, b) => a[0] - b[0]);
  const columns = tables.map((_, of) => rows.map((row) => (row[2] === of ? row[1] : undefined)));
  return [rows.map((row) => row[0]), ...columns];
}

// ---- one chart

function draw(element) {
  const chart = page.charts[+element.dataset.chart];
  const mode = state.modes[chart.id] || {};
  const lines = chart.lines.filter((line) => isShown(chart, line));
  const tables = lines.map((line) => pointsOf(line, mode));
  const data = !tables.length ? [[], []] : chart.points ? joinedClouds(tables) : uPlot.join(tables);
  const series = [{}], bands = [], owners = [null];
  lines.forEach((line, i) => {
    const color = style(colorOf(line));
    series.push(seriesOf(chart, line, color));
    owners.push(line);
    if (tables[i].length === 4) {
      bands.push({ series: [series.length + 1, series.length], fill: color + "22" });
      for (let end = 0; end < 2; end++) {
        series.push({ stroke: "transparent", width: 0, points: { show: false } });
        owners.push(null);
      }
    }
  });
  if (series.length === 1) series.push({});
  const canvas = element.querySelector(".canvas");
  const old = drawn.get(element);
  if (old) old.destroy();
  canvas.replaceChildren();
  const plot = new uPlot(options(chart, mode, lines, series, bands, canvas), data, canvas);
  addTip(plot, chart, owners, canvas, element);
  drawn.set(element, plot);
}

function seriesOf(chart, line, color) {
  const many = line.y.length > (chart.large ? 40 : 12);
  return {
    ...(chart.points ? { paths: () => null } : {}),
    stroke: line.thin ? color + "77" : color,
    width: line.thin ? 1 : 2,
    dash: DASHES[(line.dash || 0) % DASHES.length],
    points: {
      show: chart.points || !(line.thin || many),
      size: chart.points ? 7 : 5,
      fill: color + "aa",
    },
  };
}

function options(chart, mode, lines, series, bands, canvas) {
  const font = "12px system-ui, sans-serif";
  const axis = {
    stroke: style("--muted"),
    grid: { stroke: style("--line"), width: 1 },
    ticks: { show: false },
    font,
    labelFont: font,
    labelSize: 18,
  };
  const width = Math.max(canvas.clientWidth, 200);
  const narrow = width < 500;
  const xTitle = mode.time ? "training time (minutes)" : chart.x_title;
  const numbers = (u, splits) => splits.map((value) => (value === null ? "" : short(value)));
  const shares = (u, splits) => splits.map((value) => (value === null ? "" : format(chart, value)));
  return {
    width,
    height: chart.large ? (narrow ? 300 : 360) : 210,
    legend: { show: false },
    cursor: { points: { size: 8 }, y: false, drag: { x: true, y: false } },
    scales: { x: scaleOfX(chart, mode, lines), y: scaleOfY(chart, mode) },
    axes: [
      { ...axis, label: xTitle, size: 28, space: 60, values: numbers },
      { ...axis, label: chart.y_title, size: 48, values: shares },
    ],
    series,
    bands,
    hooks: { drawAxes: [(u) => shade(u, chart)], draw: [(u) => rule(u, chart)] },
  };
}

// As far as the runs go: published curves are longer, and shown whole on request.
function scaleOfX(chart, mode, lines) {
  const scale = { time: false, distr: mode.logX ? 3 : 1 };
  if (chart.points) return scale;
  const own = lines.filter((line) => line.kind !== "published");
  const taken = mode.whole || !own.length ? lines : own;
  const all = taken.flatMap((line) => pointsOf(line, mode)[0]);
  const low = Math.min(...all), high = Math.max(...all);
  if (low < high) scale.range = () => [low, high];
  return scale;
}

function scaleOfY(chart, mode) {
  const scale = { distr: mode.logY ? 3 : 1 };
  if (chart.y_range && !mode.logY) {
    const [low, high] = chart.y_range, edge = 0.02 * (high - low);
    scale.range = () => [low - edge, high + edge];
  }
  return scale;
}

function shade(u, chart) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.fillStyle = style("--shade");
  for (const [from, to] of chart.spans) {
    const left = Math.max(u.valToPos(from, "x", true), bbox.left);
    const right = Math.min(u.valToPos(to, "x", true), bbox.left + bbox.width);
    if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
  }
  ctx.restore();
}

// The line at 0, or the diagonal on which both axes agree.
function rule(u, chart) {
  if (!chart.zero && !chart.points) return;
  const { ctx, bbox } = u, { x, y } = u.scales;
  if (x.min === null || y.min === null) return;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.strokeStyle = style("--muted");
  ctx.setLineDash([4, 4]);
  ctx.beginPath();
  const at = (value, scale) => u.valToPos(value, scale, true);
  ctx.moveTo(at(x.min, "x"), at(chart.zero ? 0 : x.min, "y"));
  ctx.lineTo(at(x.max, "x"), at(chart.zero ? 0 : x.max, "y"));
  ctx.stroke();
  ctx.restore();
}

// ---- what a chart says where it is pointed at, or where arrow keys lead

function addTip(plot, chart, owners, canvas, element) {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  canvas.append(tip);
  plot.hooks.setCursor = [(u) => say(u, chart, owners, tip)];
  element.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const x = plot.data[0];
    if (!step || !x.length) return;
    const away = plot.cursor.left < 0 || plot.cursor.idx == null;
    const from = away ? (step > 0 ? -1 : x.length) : plot.cursor.idx;
    const to = Math.min(Math.max(from + step, 0), x.length - 1);
    plot.setCursor({ left: plot.valToPos(x[to], "x"), top: plot.over.clientHeight / 3 });
    event.preventDefault();
  };
}

// The index nearest to one at which a line has a value.
function nearest(column, index) {
  for (let away = 0; away < column.length; away++) {
    if (column[index - away] != null) return index - away;
    if (column[index + away] != null) return index + away;
  }
  return null;
}

const MOST_SAID = 9;

function say(u, chart, owners, tip) {
  const { left, top, idx } = u.cursor;
  if (idx == null || left < 0) {
    tip.hidden = true;
    return;
  }
  const found = [];
  owners.forEach((line, i) => {
    const at = line && nearest(u.data[i], idx);
    if (at == null) return;
    const x = u.data[0][at], y = u.data[i][at];
    const far = Math.hypot(u.valToPos(x, "x") - left, u.valToPos(y, "y") - top);
    const ends = owners[i + 1] === null ? [u.data[i + 1][at], u.data[i + 2][at]] : null;
    found.push({ line, x, y, ends, far });
  });
  found.sort((a, b) => a.far - b.far);
  const said = found.slice(0, chart.points ? 1 : MOST_SAID);
  tip.replaceChildren(...said.map((each) => sentence(chart, each)));
  if (!chart.points && found.length > MOST_SAID) tip.append(`and ${found.length - MOST_SAID} more`);
  tip.hidden = !found.length;
  const room = u.over.clientWidth, before = u.over.offsetLeft;
  tip.style.left = left > room / 2 ? "" : before + left + 14 + "px";
  tip.style.right = left > room / 2 ? room - left + 14 + "px" : "";
  tip.style.top = u.over.offsetTop + 4 + "px";
}

function sentence(chart, { line, x, y, ends }) {
  const row = document.createElement("div");
  const interval = ends ? ` [${format(chart, ends[0])}, ${format(chart, ends[1])}]` : "";
  const words = chart.points
    ? `predicted ${short(x)}, realised ${short(y)}`
    : `${format(chart, y)}${interval} at ${short(x)}`;
  row.append(swatch(line), `${line.name}: ${words}`);
  return row;
}

function swatch(line) {
  const mark = document.createElement("i");
  mark.style.background = `var(${colorOf(line)})`;
  if (line.dash) mark.className = "dashed";
  return mark;
}

// ---- what is around a chart: its legend and its axes

function furnish(element) {
  const chart = page.charts[+element.dataset.chart];
  const canvas = document.createElement("div");
  canvas.className = "canvas";
  const tools = document.createElement("p");
  tools.className = "tools";
  const mode = (name) => (state.modes[chart.id] || {})[name] || false;
  for (const [name, words] of toolsOf(chart)) {
    const change = () => {
      state.modes[chart.id] = { ...state.modes[chart.id], [name]: !mode(name) };
      remember();
      draw(element);
    };
    tools.append(button(words, () => mode(name), change));
  }
  const legend = document.createElement("p");
  legend.className = "legend";
  const named = chart.lines.filter((line) => !line.thin);
  if (chart.large || chart.points) legend.append(...named.map((line) => legendOf(chart, line)));
  element.append(tools, canvas, legend);
}

function toolsOf(chart) {
  if (chart.points) return [];
  const tools = chart.large ? [["logX", "log steps"]] : [];
  const some = (holds) => chart.lines.some(holds);
  const positive = some((line) => line.y.some((y) => y > 0));
  if (!chart.percent && positive) tools.push(["logY", "log values"]);
  if (some((line) => line.seconds)) tools.push(["time", "over time"]);
  if (some((line) => line.kind === "published")) tools.push(["whole", "whole published curves"]);
  return tools;
}

function legendOf(chart, line) {
  const key = `line:${chart.id}:${line.name}`;
  const made = button(line.name, () => !hidden.has(key), () => toggle(key));
  made.prepend(swatch(line));
  refreshers.push(() => (made.hidden = hidden.has("kind:" + line.kind)));
  refreshers.at(-1)();
  return made;
}

const refreshers = []; // show on each button whether it is pressed

function button(words, isPressed, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.append(words);
  const show = () => made.setAttribute("aria-pressed", String(isPressed()));
  refreshers.push(show);
  made.onclick = () => {
    press();
    refreshers.forEach((each) => each());
  };
  show();
  return made;
}

function toggle(key) {
  if (!hidden.delete(key)) hidden.add(key);
  remember();
  redraw();
}

// ---- the page

function redraw() {
  for (const [element, plot] of drawn) {
    if (inSight.has(element)) draw(element);
    else if (plot) {
      plot.destroy();
      drawn.set(element, null);
    }
  }
}

function controls() {
  const place = document.getElementById("controls");
  for (const [title, prefix, names] of page.controls) {
    const row = document.createElement(names.length > 8 ? "details" : "div");
    const label = document.createElement(names.length > 8 ? "summary" : "span");
    label.textContent = names.length > 8 ? `${title} (${names.length})` : title;
    row.append(label);
    for (const [name, words, color] of names) {
      const key = `${prefix}:${name}`;
      const made = button(words, () => !hidden.has(key), () => toggle(key));
      if (color !== null) made.prepend(swatch({ color }));
      row.append(made);
    }
    place.append(row);
  }
}

const inSight = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) inSight.delete(target);
    else {
      inSight.add(target);
      if (!drawn.get(target)) draw(target);
    }
  }
}, { rootMargin: "300px" });
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const plot = drawn.get(target.parentElement);
    if (plot && Math.abs(plot.width - target.clientWidth) > 1 && target.clientWidth > 0) {
      plot.setSize({ width: target.clientWidth, height: plot.height });
    }
  }
});

page.charts.forEach((chart, i) => (chart.id = i));
controls();
for (const element of document.querySelectorAll(".chart")) {
  furnish(element);
  watcher.observe(element);
  sizes.observe(element.querySelector(".canvas"));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => document.querySelectorAll(".chart").forEach(draw));
if (page.refresh) setTimeout(() => location.reload(), 1000 * page.refresh);
