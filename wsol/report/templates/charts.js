// Line charts and stacked bars as SVG, redrawn when their place changes its width.
//
// wsol.lineChart(element, { series: [{ name, color: "var(--s0)", dash: "", x: […], y: […], marks: [[x, y], …] }],
//                           x: { label, domain: [0, 1] }, y: { label, domain: [0, 100] }, digits: 1 })
//   with x.names = ["a", "b"] the places 0, 1, … have names instead of numbers
// wsol.stackedBars(element, { kinds: [{ name, color }], bars: [{ name, values: […] }] })   values in percent
// wsol.legend(element, series)
// Each replaces what the element held, so it may be called again with other data.
"use strict";

wsol.svg = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

// Call draw(width) now and whenever the element gets another width.
wsol.redrawn = (element, draw) => {
  element.redraw = draw;
  if (element.observed) { draw(element.clientWidth); return; }
  element.observed = new ResizeObserver(() => {
    if (element.clientWidth && element.clientWidth !== element.drawn) { element.drawn = element.clientWidth; element.redraw(element.drawn); }
  });
  element.observed.observe(element);
};

wsol.ticks = ([low, high], wanted) => {
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) found.push(Number((k * step).toPrecision(12)));
  return found;
};

wsol.lineChart = (element, chart) => wsol.redrawn(element, (width) => {
  const height = Math.round(Math.min(300, Math.max(200, 0.62 * width)));
  const left = 32, right = 10, top = 24, bottom = 38;
  const [x0, x1] = chart.x.domain, [y0, y1] = chart.y.domain;
  const across = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
  const down = (y) => height - bottom - ((y - y0) / (y1 - y0)) * (height - top - bottom);
  const svg = wsol.svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${chart.y.label} over ${chart.x.label}` });
  for (const tick of wsol.ticks(chart.y.domain, 5)) {
    svg.append(wsol.svg("line", { class: "grid", x1: left, x2: width - right, y1: down(tick), y2: down(tick) }));
    svg.append(wsol.svg("text", { x: left - 6, y: down(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  const names = chart.x.names?.map((name, i) => [i, name]) ?? wsol.ticks(chart.x.domain, width < 360 ? 4 : 6).map((tick) => [tick, String(tick)]);
  for (const [place, name] of names) {
    svg.append(wsol.svg("text", { x: across(place), y: height - bottom + 16, "text-anchor": "middle" }, name));
  }
  svg.append(wsol.svg("line", { class: "axis", x1: left, x2: width - right, y1: down(y0), y2: down(y0) }));
  svg.append(wsol.svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, chart.x.label));
  svg.append(wsol.svg("text", { x: 0, y: 11 }, chart.y.label));
  for (const one of chart.series) {
    const points = one.x.map((x, i) => (one.y[i] === null ? null : `${across(x).toFixed(1)},${down(one.y[i]).toFixed(1)}`));
    const path = points.map((point, i) => (point === null ? "" : (i > 0 && points[i - 1] !== null ? "L" : "M") + point)).join("");
    svg.append(wsol.svg("path", { d: path, fill: "none", "stroke-width": 1.8, "stroke-dasharray": one.dash, "stroke-linejoin": "round", style: `stroke:${one.color}` }));
    for (const [x, y] of one.marks ?? []) {
      svg.append(wsol.svg("circle", { cx: across(x), cy: down(y), r: 4, "stroke-width": 1.5, style: `fill:${one.color};stroke:var(--paper)` }));
    }
  }
  const hair = wsol.svg("line", { class: "axis", y1: top, y2: height - bottom, visibility: "hidden" });
  svg.append(hair);
  // Places to read at: those of the longest series.
  const places = chart.series.reduce((longest, one) => (one.x.length > longest.length ? one.x : longest), []);
  const nearest = (list, x) => list.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(list[best] - x) ? i : best), 0);
  element.classList.add("chart");
  element.replaceChildren(svg, wsol.readout(svg, {
    count: places.length,
    start: nearest(places, chart.series[0]?.marks?.[0]?.[0] ?? x0),
    at: (x) => { const value = x0 + ((x * width - left) / (width - left - right)) * (x1 - x0); return value < x0 || value > x1 ? null : nearest(places, value); },
    show: (i) => { hair.setAttribute("visibility", i === null ? "hidden" : "visible"); if (i !== null) for (const end of ["x1", "x2"]) hair.setAttribute(end, across(places[i])); },
    say: (i) => {
      const said = chart.series.map((one) => { const y = one.y[nearest(one.x, places[i])]; return y === null ? "" : `${one.name} ${y.toFixed(chart.digits ?? 1)}`; });
      return `${chart.x.names?.[i] ?? `${chart.x.label} ${places[i].toFixed(3)}`}: ${said.filter(Boolean).join(", ")}`;
    },
  }));
});

// A line of text below a chart that follows the pointer and, while the chart has the focus, the arrow keys.
wsol.readout = (svg, { count, start, at, show, say }) => {
  const line = wsol.make("div", { class: "readout", "aria-live": "polite" });
  let place = null;
  const read = (i) => { place = i; show(i); line.textContent = i === null ? "" : say(i); };
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), i = at((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    if (i !== null && count) read(i);
  });
  svg.addEventListener("pointerleave", () => { if (document.activeElement !== svg) read(null); });
  svg.addEventListener("focus", () => { if (count && place === null) read(start); });
  svg.addEventListener("blur", () => read(null));
  svg.addEventListener("keydown", (event) => {
    const { key, shiftKey } = event;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key], far = shiftKey ? 10 : 1;
    const next = step ? (place ?? start) + step * far : { Home: 0, End: count - 1, Escape: null }[key];
    if (next === undefined || !count) return;
    if (next === null) svg.blur(); else { event.preventDefault(); read(Math.min(Math.max(next, 0), count - 1)); }
  });
  return line;
};

wsol.stackedBars = (element, chart) => wsol.redrawn(element, (width) => {
  const left = Math.min(150, Math.round(0.3 * width)), right = 14, row = 26, bottom = 22, height = chart.bars.length * row + bottom;
  const scale = (width - left - right) / 100;
  const svg = wsol.svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "shares of samples" });
  const frame = wsol.svg("rect", { class: "frame", x: left - 1, width: width - left - right + 2, height: row - 4, visibility: "hidden" });
  chart.bars.forEach((bar, number) => {
    const letters = Math.floor(left / 7), name = bar.name.length > letters ? `${bar.name.slice(0, letters - 1)}…` : bar.name;
    svg.append(wsol.svg("text", { x: left - 8, y: number * row + 17, "text-anchor": "end" }, wsol.svg("title", {}, bar.name), name));
    let start = 0;
    bar.values.forEach((value, kind) => {
      const x = left + start * scale, wide = value * scale;
      svg.append(wsol.svg("rect", { x, y: number * row + 3, width: Math.max(0, wide - 0.5), height: row - 6, style: `fill:${chart.kinds[kind].color}` }));
      if (wide > 30) {
        svg.append(wsol.svg("text", { x: x + wide / 2, y: number * row + 17, "text-anchor": "middle", style: `fill:${chart.kinds[kind].ink}`, "pointer-events": "none" }, value.toFixed(1)));
      }
      start += value;
    });
  });
  for (const tick of [0, 25, 50, 75, 100]) {
    svg.append(wsol.svg("text", { x: left + tick * scale, y: height - 5, "text-anchor": "middle" }, String(tick)));
  }
  svg.append(frame);
  element.classList.add("chart");
  element.replaceChildren(svg, wsol.readout(svg, {
    count: chart.bars.length,
    start: 0,
    at: (x, y) => { const bar = Math.floor((y * height) / row); return bar < chart.bars.length ? bar : null; },
    show: (i) => { frame.setAttribute("visibility", i === null ? "hidden" : "visible"); if (i !== null) frame.setAttribute("y", i * row + 2); },
    say: (i) => `${chart.bars[i].name}: ${chart.bars[i].values.map((value, kind) => (value ? `${chart.kinds[kind].name} ${value.toFixed(1)}` : "")).filter(Boolean).join(", ")}`,
  }));
});

wsol.legend = (element, series) => {
  element.classList.add("legend");
  element.replaceChildren(...series.map((one) => {
    const line = wsol.svg("line", { x1: 0, x2: 24, y1: 6, y2: 6, "stroke-width": 2.5, "stroke-dasharray": one.dash ?? "", style: `stroke:${one.color}` });
    const patch = wsol.svg("rect", { x: 6, y: 0, width: 12, height: 12, style: `fill:${one.color}` });
    const sign = wsol.svg("svg", { width: 24, height: 12, "aria-hidden": "true" }, one.dash === undefined ? patch : line);
    return wsol.make("li", {}, sign, one.name);
  }));
};
