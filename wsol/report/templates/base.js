// The theme button, and tables that can be sorted by a click on a column's head.
"use strict";

const wsol = {};

wsol.data = (id) => {
  const element = document.getElementById(id);
  return element === null ? null : JSON.parse(element.textContent);
};

// Make an element: attributes as they are, text as text, children appended.
wsol.make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

wsol.sortable = (table) => {
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  const sort = (head) => {
    const column = head.cellIndex;
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const cell of head.parentElement.cells) cell.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    for (const body of table.tBodies) {
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      // What is empty comes last, in both directions.
      rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    }
  };
  for (const head of table.tHead.rows[table.tHead.rows.length - 1].cells) {
    const button = wsol.make("button", { type: "button", class: "sort" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head));
  }
};

// On a phone a row is a block in which every cell says its column's name.
wsol.label = (table) => {
  const names = [...table.tHead.rows[table.tHead.rows.length - 1].cells].map((head) => head.textContent.trim());
  for (const body of table.tBodies) for (const row of body.rows) [...row.cells].forEach((cell, i) => { cell.dataset.label = names[i]; });
};

// What has data-protocol is shown while that protocol is chosen, or always where it is "".
wsol.protocol = () => document.getElementById("protocol")?.value ?? [...document.querySelectorAll("[data-protocol]")].map((one) => one.dataset.protocol).find(Boolean);
wsol.watchProtocol = (follow) => {
  const show = () => {
    const protocol = wsol.protocol();
    for (const element of document.querySelectorAll("[data-protocol]")) element.hidden = !["", protocol].includes(element.dataset.protocol);
    follow(protocol);
  };
  document.getElementById("protocol")?.addEventListener("change", show);
  show();
};

for (const table of document.querySelectorAll("table:not(.facts)")) if (table.tHead) wsol.label(table);
for (const table of document.querySelectorAll("table.sortable")) wsol.sortable(table);

for (const box of document.querySelectorAll(".show-intervals")) {
  box.addEventListener("change", () => {
    document.documentElement.classList.toggle("intervals", box.checked);
    for (const other of document.querySelectorAll(".show-intervals")) other.checked = box.checked;
  });
}

// What sticks below the bar must know how high it is.
new ResizeObserver(([bar]) => document.documentElement.style.setProperty("--bar", `${bar.target.offsetHeight}px`)).observe(document.querySelector(".bar"));

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("wsol-theme", root.dataset.theme); } catch { /* pages from a disk may have no storage */ }
});
