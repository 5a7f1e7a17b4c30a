// The page of a comparison: which pairs are shown, and the curves of every protocol.
"use strict";

wsol.showPairs = () => {
  const metric = document.getElementById("metric").value, protocol = wsol.protocol();
  const wanted = document.getElementById("pair-filter").value.trim().toLowerCase();
  for (const row of document.getElementById("pair-table").tBodies[0].rows) {
    const names = `${row.cells[0].textContent}\n${row.cells[1].textContent}`.toLowerCase();
    row.hidden = row.dataset.metric !== metric || !["", protocol].includes(row.dataset.rules) || !names.includes(wanted);
  }
};

wsol.showCurves = () => {
  const { charts, methods, count } = wsol.data("compare-data"), place = document.getElementById("curves");
  if (!place) return;
  const styled = Object.entries(methods).map(([name, style]) => ({ name, ...style }));
  wsol.legend(document.getElementById("legend"), styled);
  for (const protocol of new Set(charts.map((chart) => chart.protocol))) {
    const grid = wsol.make("div", { class: "charts" });
    place.append(wsol.make("div", { "data-protocol": protocol }, grid));
    for (const chart of charts.filter((one) => one.protocol === protocol)) {
      const drawn = wsol.make("div");
      grid.append(wsol.make("figure", {}, wsol.make("figcaption", {}, `IoU ${Math.round(100 * chart.delta)}`), drawn));
      const series = chart.series.map(({ name, x, right, tau }) => {
        const y = right.map((number) => (100 * number) / count), at = x.findIndex((value) => value >= tau - 1e-5);
        return { name, ...methods[name], x, y, marks: at < 0 ? [] : [[x[at], y[at]]] };
      });
      wsol.lineChart(drawn, { series, x: { label: "τ", domain: [0, 1] }, y: { label: "percent", domain: [0, 100] } });
    }
  }
};

document.getElementById("metric").addEventListener("change", wsol.showPairs);
document.getElementById("pair-filter").addEventListener("input", wsol.showPairs);
wsol.showCurves();
wsol.watchProtocol(wsol.showPairs);
