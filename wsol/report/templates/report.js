// The page of a run: its charts and tables for the protocol that is chosen, and its gallery.
"use strict";

wsol.report = wsol.data("report-data");

wsol.showProtocol = (protocol) => {
  const { charts, methods, kinds } = wsol.report, chosen = charts[protocol];
  const of = Object.fromEntries(methods.map((method) => [method.name, method]));
  const percent = { label: "percent", domain: [0, 100] };
  const line = (name, x, y, marks = []) => ({ name: of[name].label, color: of[name].color, dash: of[name].dash, x, y, marks });

  const curves = document.getElementById("curves");
  curves?.replaceChildren(...Object.entries(chosen.curves).map(([delta, counts]) => {
    const place = wsol.make("div", { "data-delta": delta });
    const series = Object.entries(counts).map(([name, right]) => {
      const y = right.map((count) => (100 * count) / chosen.count), tau = chosen.thresholds[name];
      const at = chosen.grid.findIndex((value) => value >= tau - 1e-9);
      return line(name, chosen.grid, y, [[chosen.grid[at], y[at]]]);
    });
    wsol.lineChart(place, { series, x: { label: "τ", domain: [0, 1] }, y: percent });
    return wsol.make("figure", {}, wsol.make("figcaption", {}, `IoU ${Math.round(100 * delta)}`), place);
  }));

  const shares = document.getElementById("shares");
  if (shares) {
    const at = Array.from({ length: 101 }, (_, i) => i / 100);
    const series = Object.entries(chosen.shares).map(([name, values]) => line(name, at, values));
    wsol.lineChart(shares, { series, x: { label: "IoU", domain: [0, 1] }, y: percent });
  }
  for (const [id, label] of [["sizes", "object's share of the image"], ["instances", "objects in the image"]]) {
    const place = document.getElementById(id);
    if (place) place.closest("figure").hidden = !chosen[id];
    if (!place || !chosen[id]) continue;
    const { bins, counts, values } = chosen[id], at = bins.map((_, i) => i);
    const series = Object.entries(values).map(([name, y]) => line(name, at, y, at.map((x) => [x, y[x]])));
    wsol.lineChart(place, { series, x: { label, domain: [-0.4, bins.length - 0.6], names: bins }, y: percent });
    document.getElementById(`${id}-note`).textContent = `Samples: ${bins.map((bin, i) => `${bin}: ${counts[i]}`).join(", ")}.`;
  }
  const bars = document.getElementById("kinds");
  if (bars) wsol.stackedBars(bars, { kinds, bars: Object.entries(chosen.errors).map(([name, values]) => ({ name: of[name].label, values })) });
  wsol.showClasses(protocol);
};

wsol.showClasses = (protocol) => {
  const select = document.getElementById("class-metric");
  if (!select) return;
  const { classes } = wsol.report.charts[protocol], kept = select.value, metrics = Object.keys(classes);
  select.replaceChildren(...metrics.map((name) => wsol.make("option", { value: name }, wsol.report.class_metrics[name])));
  if (metrics.includes(kept)) select.value = kept;
  const { names, values } = classes[select.value] ?? { names: [], values: {} };
  const methods = Object.keys(values), table = document.getElementById("class-table");
  const label = (name) => wsol.report.methods.find((method) => method.name === name).label;
  const head = wsol.make("tr", {}, wsol.make("th", { class: "name" }, "class"), ...methods.map((name) => wsol.make("th", { class: "number" }, label(name))));
  const wanted = document.getElementById("class-filter").value.trim().toLowerCase();
  const rows = names.flatMap((name, i) => {
    if (!name.toLowerCase().includes(wanted)) return [];
    const numbers = methods.map((method) => values[method][i] ?? -1), best = Math.max(...numbers);
    const cells = methods.map((method) => {
      const value = values[method][i], kind = value === best && best > Math.min(...numbers) ? "number best" : "number";
      return wsol.make("td", { class: kind }, value === null ? "" : value.toFixed(1));
    });
    return [wsol.make("tr", {}, wsol.make("td", { class: "name" }, name), ...cells)];
  });
  table.replaceChildren(wsol.make("thead", {}, head), wsol.make("tbody", {}, ...rows));
  wsol.label(table);
  wsol.sortable(table);
  document.getElementById("class-note").textContent = `${rows.length} of ${names.length} classes, ${protocol}; percent.`;
};

wsol.startReport = () => {
  const { methods, kinds } = wsol.report;
  for (const place of document.querySelectorAll('[data-legend="methods"]')) wsol.legend(place, methods.map((method) => ({ ...method, name: method.label })));
  for (const place of document.querySelectorAll('[data-legend="kinds"]')) wsol.legend(place, kinds);
  wsol.watchProtocol((protocol) => { wsol.showProtocol(protocol); wsol.gallery?.useProtocol(protocol); });
  document.getElementById("class-metric")?.addEventListener("change", () => wsol.showClasses(wsol.protocol()));
  document.getElementById("class-filter")?.addEventListener("input", () => wsol.showClasses(wsol.protocol()));
};

wsol.startGallery = async () => {
  const root = document.getElementById("gallery");
  if (!root) return;
  try {
    wsol.gallery = new wsol.Gallery(root, await wsol.inflated("gallery-data"), wsol.report.charts);
    wsol.gallery.useProtocol(wsol.protocol() ?? wsol.report.protocols[0]);
    wsol.gallery.follow();
    root.dataset.ready = "true";
  } catch (error) {
    root.append(wsol.make("p", { class: "warning" }, `The gallery needs a newer browser: ${error.message}`));
  }
};

wsol.startReport();
wsol.startGallery();
