// The gallery: every method at its own τ, or a slider for all; boxes, masks and the accuracies beside it follow.
//
// Boxes and IoUs at every τ are the run's own (run-length coded); masks are made from the raw heatmaps by score_map.js.
"use strict";

wsol.inflated = async (id) => {
  const packed = document.getElementById(id).textContent.trim();
  const stream = new Blob([wsol.bytesOf(packed)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
};

wsol.Gallery = class {
  static TRUTH = "#ffffff";
  static FOUND = "#ff5a36";
  static ADDRESS = "#picture=";

  constructor(root, data, charts) {
    this.root = root;
    this.data = data;
    this.charts = charts;
    this.by = (name) => root.querySelector(`[data-control="${name}"]`);
    this.colors = Object.fromEntries(Object.entries(data.colormaps).map(([name, packed]) => [name, wsol.bytesOf(packed)]));
    this.shown = new Set(data.methods.slice(0, 5).map((method) => method.name));
    for (const method of data.methods) if (method.baseline && this.shown.size < 6) this.shown.add(method.name);
    for (const sample of data.samples) this.unpack(sample);
    this.makeCards();
    this.makeLarge();
    this.makeControls();
    this.useProtocol(data.protocol_names[0]);
  }

  // Runs begin at their first τ: sums of the steps that were stored.
  unpack(sample) {
    for (const protocols of Object.values(sample.runs)) {
      for (const runs of Object.values(protocols)) {
        let at = 0;
        runs.first = runs.first.map((step) => (at += step));
      }
    }
    sample.cache = new Map();
    if (sample.image) {
      sample.picture = new Image();
      sample.picture.src = sample.image;
      sample.ready = sample.picture.decode().catch(() => { sample.picture = null; });
    }
  }

  makeCards() {
    const place = this.root.querySelector(".cards");
    this.seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const card = this.cards.find((one) => one.element === entry.target);
        card.visible = entry.isIntersecting;
        if (card.visible && card.stale) this.draw(card);
        if (!card.visible) card.sample.cache.clear();
      }
    }, { rootMargin: "300px" });
    this.cards = this.data.samples.map((sample) => {
      const row = wsol.make("div", { class: "panels" }), about = wsol.make("header", {}, ...this.about(sample));
      const card = { sample, panels: this.makePanels(row), visible: false, stale: true };
      card.element = wsol.make("article", { class: "card", "data-sample": sample.id }, about, row);
      for (const { figure } of card.panels.values()) figure.addEventListener("click", () => this.open(card));
      const button = wsol.make("button", { type: "button", title: "Enlarge" }, "⤢");
      button.addEventListener("click", () => this.open(card));
      about.append(button);
      place.append(card.element);
      this.seen.observe(card.element);
      sample.ready?.then(() => { card.stale = true; this.paintSoon(); });
      return card;
    });
  }

  makePanels(row) {
    return new Map([null, ...this.data.methods].map((method) => {
      const canvas = wsol.make("canvas", { role: "img" }), caption = wsol.make("figcaption");
      const figure = wsol.make("figure", { "data-method": method ? method.name : "" }, canvas, caption);
      row.append(figure);
      return [method, { figure, canvas, caption }];
    }));
  }

  // True class, what the classifier predicts, and which picture it is.
  about(sample) {
    const { name, share } = sample.predicted ?? {}, percent = share === null || share === undefined ? "" : ` ${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
    const rank = sample.rank > 0 ? `, the true class is ranked ${sample.rank + 1}` : "";
    const said = sample.rank < 0 ? "" : `predicted: ${name ?? (rank ? "another class" : sample.class)}${percent}${rank}`;
    return [wsol.make("strong", {}, sample.class), wsol.make("span", { class: "predicted" }, said), wsol.make("span", {}, sample.id)];
  }

  // One picture, large: the image and all methods, or one of them.
  makeLarge() {
    this.large = this.root.querySelector("dialog.large");
    const row = this.large.querySelector(".panels");
    this.largePanels = this.makePanels(row);
    for (const [method, { figure }] of this.largePanels) {
      figure.addEventListener("click", () => { this.alone = this.alone === undefined ? method : undefined; this.drawLarge(); });
    }
    for (const button of this.large.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        if (button.dataset.step) this.step(Number(button.dataset.step));
        else if (button.dataset.zoom) this.zoom(Number(button.dataset.zoom));
        else this.large.close();
      });
    }
    this.large.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key], zoom = { "+": 1.25, "-": 0.8, 0: 0 }[event.key];
      if (step) this.step(step);
      if (zoom !== undefined) this.zoom(zoom);
      if (step || zoom !== undefined) event.preventDefault();
    });
    this.large.querySelector(".stage").addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8);
    }, { passive: false });
    this.large.addEventListener("close", () => history.replaceState(null, "", location.href.split("#")[0]));
    addEventListener("hashchange", () => this.follow());
  }

  open(card) {
    this.current = card;
    if (!this.large.open) { this.alone = undefined; this.large.showModal(); this.zoom(0); }
    history.replaceState(null, "", `${wsol.Gallery.ADDRESS}${encodeURIComponent(card.sample.id)}`);
    this.drawLarge();
  }

  // Open the picture that the page's address names.
  follow() {
    if (!location.hash.startsWith(wsol.Gallery.ADDRESS)) return;
    const wanted = decodeURIComponent(location.hash.slice(wsol.Gallery.ADDRESS.length));
    const card = this.cards.find((one) => one.sample.id === wanted);
    if (card) this.open(card);
  }

  // The next picture, in the order of the cards.
  step(by) {
    const order = [...this.root.querySelectorAll(".card")].map((element) => this.cards.find((card) => card.element === element));
    const shown = order.filter((card) => !card.element.hidden || card === this.current);
    this.open(shown[(shown.indexOf(this.current) + by + shown.length) % shown.length]);
  }

  zoom(by) {
    this.scale = by ? Math.min(Math.max(this.scale * by, 0.3), 8) : 1;
    this.large.style.setProperty("--zoom", this.scale);
  }

  drawLarge() {
    if (!this.large.open) return;
    const { sample } = this.current;
    this.large.querySelector(".about").replaceChildren(...this.about(sample));
    for (const [method, { figure }] of this.largePanels) {
      const shown = method === null || this.shown.has(method.name);
      figure.hidden = this.alone === undefined ? !shown : this.alone !== method;
    }
    this.draw({ sample, panels: this.largePanels });
    sample.ready?.then(() => { if (this.current.sample === sample) this.draw({ sample, panels: this.largePanels }); });
  }

  makeControls() {
    const chips = this.root.querySelector(".chips");
    this.chips = new Map(this.data.methods.map((method) => {
      const box = wsol.make("input", { type: "checkbox" }), value = wsol.make("output"), own = wsol.make("button", { type: "button" });
      box.checked = this.shown.has(method.name);
      const sign = wsol.make("i", { style: `background:${method.color}` });
      chips.append(wsol.make("li", { "data-method": method.name }, wsol.make("label", {}, box, sign, method.label, value), own));
      box.addEventListener("change", () => {
        if (box.checked) this.shown.add(method.name); else this.shown.delete(method.name);
        this.arrange();
      });
      own.addEventListener("click", () => { this.by("own").checked = false; this.moveTo(this.charts[this.protocol].thresholds[method.name]); });
      return [method.name, { value, own }];
    }));
    for (const name of ["first", "second"]) {
      this.by(name).append(...this.data.methods.map((method) => wsol.make("option", { value: method.name }, method.label)));
    }
    this.by("second").selectedIndex = Math.min(1, this.data.methods.length - 1);
    this.slider = this.by("threshold");
    this.slider.addEventListener("input", () => { this.by("own").checked = false; this.redrawSoon(); });
    this.by("own").addEventListener("change", () => this.arrange());
    this.slider.addEventListener("change", () => this.arrange());
    for (const name of ["sort", "first", "second", "kind", "reason"]) this.by(name).addEventListener("change", () => this.arrange());
    for (const name of ["view", "colors", "mask", "boxes", "delta"]) this.by(name).addEventListener("change", () => this.redrawSoon());
    this.by("class").addEventListener("input", () => this.arrange());
    addEventListener("beforeprint", () => { for (const card of this.cards) if (card.stale && !card.element.hidden) this.draw(card); });
  }

  useProtocol(name) {
    this.protocol = name;
    this.rules = this.data.protocols[name];
    const charts = this.charts[name], deltas = Object.keys(charts.curves);
    const kept = this.by("delta").value;
    this.by("delta").replaceChildren(...deltas.map((delta) => wsol.make("option", { value: delta }, `IoU ${Math.round(100 * delta)}`)));
    this.by("delta").value = deltas.includes(kept) ? kept : deltas.find((delta) => Math.abs(delta - 0.5) < 1e-9) ?? deltas[0] ?? "";
    this.by("delta").hidden = !deltas.length;
    this.slider.max = charts.grid.length - 1;
    this.root.querySelector(".any").hidden = this.rules.component !== "any" || !deltas.length;
    for (const [method, { own }] of this.chips) {
      const tau = charts.thresholds[method];
      own.hidden = tau === undefined;
      own.textContent = own.hidden ? "" : `τ ${tau.toFixed(3)}`;
      own.title = "This τ for all methods";
    }
    this.places = Object.fromEntries(Object.entries(charts.thresholds).map(([method, tau]) => [method, this.nearest(tau)]));
    for (const card of this.cards) card.sample.cache.clear();
    this.moveTo(Object.values(charts.thresholds)[0] ?? 0.2);
  }

  nearest(tau) {
    return this.charts[this.protocol].grid.reduce((best, value, i, grid) => (Math.abs(value - tau) < Math.abs(grid[best] - tau) ? i : best), 0);
  }

  // Where on the grid a method is looked at: at its own τ, or at the slider's.
  place(method) { return (this.by("own").checked ? this.places[method] : undefined) ?? Number(this.slider.value); }

  moveTo(tau) {
    this.slider.value = this.nearest(tau);
    this.arrange();
  }

  // Box (edges in score-map pixels) and IoU of a sample at the method's τ; null where the run has none.
  at(sample, method) {
    const runs = sample.runs[method]?.[this.protocol];
    if (!runs) return null;
    const index = this.place(method);
    let low = 0, high = runs.first.length;
    while (high - low > 1) { const middle = (low + high) >> 1; if (runs.first[middle] <= index) low = middle; else high = middle; }
    const box = runs.boxes.slice(4 * low, 4 * low + 4);
    return { box: box[0] < 0 ? null : box, iou: runs.iou[low] };
  }

  right(iou) {
    const limit = Math.round(10000 * Number(this.by("delta").value || 0.5));
    return this.rules.iou_comparison === ">" ? iou > limit : iou >= limit;
  }

  // Filter and sort the cards, then draw.
  arrange() {
    const wanted = this.by("class").value.trim().toLowerCase(), kind = this.by("kind").value, reason = this.by("reason").value;
    const first = this.by("first").value, second = this.by("second").value, sort = this.by("sort").value;
    const iou = (sample, method) => this.at(sample, method)?.iou ?? 0;
    const kindOf = (sample) => sample.kinds[first]?.[this.protocol] ?? "";
    const keys = {
      order: (sample) => sample.number,
      low: (sample) => iou(sample, first),
      high: (sample) => -iou(sample, first),
      disagreement: (sample) => -Math.abs(iou(sample, first) - iou(sample, second)),
      kind: (sample) => this.data.kinds.findIndex(([name]) => name === kindOf(sample)),
      class: (sample) => sample.class,
    };
    const key = keys[sort], compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
    const order = this.cards.map((card) => [key(card.sample), card]);
    order.sort(([a, x], [b, y]) => compare(a, b) || x.sample.number - y.sample.number);
    let count = 0;
    for (const card of this.cards) {
      const { sample } = card;
      card.element.hidden = !sample.class.toLowerCase().includes(wanted) || (kind !== "" && kindOf(sample) !== kind) || (reason !== "" && sample.reason !== Number(reason));
      count += card.element.hidden ? 0 : 1;
      for (const [method, panel] of card.panels) panel.figure.hidden = method !== null && !this.shown.has(method.name);
    }
    this.by("second").parentElement.hidden = sort !== "disagreement";
    this.root.querySelector(".cards").append(...order.map(([, card]) => card.element));
    this.root.style.setProperty("--panels", String(this.shown.size + 1));
    this.root.querySelector(".count").textContent = `${count} of ${this.cards.length} shown`;
    this.redrawSoon();
  }

  redrawSoon() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.redraw(); });
  }

  redraw() {
    const charts = this.charts[this.protocol], own = this.by("own").checked, tau = charts.grid[Number(this.slider.value)].toFixed(3);
    this.by("threshold-value").textContent = own ? "its own" : tau;
    this.slider.setAttribute("aria-valuetext", own ? "each method at its own τ" : `τ ${tau}`);
    const counts = charts.curves[this.by("delta").value] ?? {};
    for (const [method, { value }] of this.chips) {
      value.textContent = counts[method] ? `${((100 * counts[method][this.place(method)]) / charts.count).toFixed(1)} %` : "";
    }
    for (const card of this.cards) {
      card.stale = true;
      if (card.visible && !card.element.hidden) this.draw(card);
    }
    this.drawLarge();
    this.paintSoon();
  }

  // Draw what nobody sees yet while there is time: pages are printed, and photographed as a whole.
  paintSoon() {
    if (this.painting) return;
    const later = window.requestIdleCallback ?? ((call) => setTimeout(call, 20));
    const next = () => {
      const card = this.cards.find((one) => one.stale && !one.element.hidden && (one.visible || one.sample.picture?.complete !== false));
      this.painting = Boolean(card);
      this.root.dataset.painted = String(!card);
      if (!card) return;
      this.draw(card);
      if (!card.visible) card.sample.cache.clear();
      later(next);
    };
    this.painting = true;
    later(next);
  }

  // Size of the score map, and of the canvas that shows it.
  sizes(sample) {
    const [width, height] = this.rules.size ?? sample.size;
    const scale = Math.min(1, this.data.drawn / Math.max(width, height));
    return { map: [width, height], canvas: [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))] };
  }

  kept(sample, key, make) {
    if (!sample.cache.has(key)) sample.cache.set(key, make());
    return sample.cache.get(key);
  }

  // Pixels of the picture at the canvas's size; gray where the picture can't be shown.
  pixels(sample, [width, height]) {
    const loaded = Boolean(sample.picture?.complete && sample.picture.naturalWidth);
    return this.kept(sample, `picture ${loaded}`, () => {
      const context = wsol.make("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
      context.fillStyle = "#8a8f96";
      context.fillRect(0, 0, width, height);
      if (loaded) context.drawImage(sample.picture, 0, 0, width, height);
      return context.getImageData(0, 0, width, height).data;
    });
  }

  draw(card) {
    const { sample } = card, sizes = this.sizes(sample);
    card.stale = false;
    for (const [method, panel] of card.panels) {
      if (panel.figure.hidden) continue;
      const { canvas, caption, figure } = panel;
      [canvas.width, canvas.height] = sizes.canvas;
      canvas.style.aspectRatio = sample.size[0] / sample.size[1];
      const found = method ? this.at(sample, method.name) : null;
      const count = this.paint(canvas.getContext("2d"), sample, method, sizes.canvas);
      if (this.by("boxes").checked) this.outline(canvas.getContext("2d"), sample, found?.box, sizes);
      if (!method) { caption.textContent = sample.image ? "image" : "no image"; canvas.setAttribute("aria-label", "image with the ground-truth box"); continue; }
      const iou = found === null ? null : (found.iou / 10000).toFixed(2);
      const said = iou === null ? "" : `${iou} ${this.right(found.iou) ? "✓" : "✗"}`;
      caption.replaceChildren(wsol.make("b", {}, method.label), " ", wsol.make("span", {}, said));
      figure.dataset.box = found?.box ? found.box.join(" ") : "";
      figure.dataset.iou = found === null ? "" : String(found.iou / 10000);
      figure.dataset.above = count === null ? "" : String(count);
      canvas.setAttribute("aria-label", `${method.label}: ${count === null ? "no heatmap" : `${count} pixels above τ`}${iou === null ? "" : `, IoU ${iou}`}`);
    }
  }

  // Picture, heatmap or both, darkened where the score map doesn't pass τ; returns how many pixels pass.
  paint(context, sample, method, [width, height]) {
    const picture = this.pixels(sample, [width, height]), image = context.createImageData(width, height);
    const view = this.by("view").value, colors = this.colors[this.by("colors").value], masked = this.by("mask").checked;
    const { size, interpolation, normalization } = this.rules;
    const scores = method && this.kept(sample, `${method.name} ${size} ${interpolation} ${normalization}`, () => wsol.scoreMap(sample, method, this.rules, width, height));
    const above = scores ? wsol.passes(this.rules, this.charts[this.protocol].grid[this.place(method.name)])(scores) : null;
    const inside = !scores || view === "image" ? 0 : view === "heatmap" ? 1 : 0.55;
    for (let i = 0; i < width * height; i += 1) {
      const dark = masked && above && !above.found[i];
      const heat = dark && view === "overlay" ? 0 : inside, light = dark ? 0.4 : 1;
      const at = heat ? 3 * Math.min(255, Math.floor(256 * scores[i])) : 0;
      for (let channel = 0; channel < 3; channel += 1) {
        image.data[4 * i + channel] = light * ((1 - heat) * picture[4 * i + channel] + (heat ? heat * colors[at + channel] : 0));
      }
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return above ? above.count : null;
  }

  outline(context, sample, box, { map, canvas }) {
    const frame = ([x0, y0, x1, y1], [width, height], color) => {
      const [across, down] = [canvas[0] / width, canvas[1] / height];
      for (const [line, ink] of [[4.5, "#000000"], [2.2, color]]) {
        context.lineWidth = line;
        context.strokeStyle = ink;
        context.strokeRect(x0 * across + 1, y0 * down + 1, Math.max((x1 - x0) * across - 2, 1), Math.max((y1 - y0) * down - 2, 1));
      }
    };
    for (const [x0, y0, x1, y1] of sample.truth) frame([x0, y0, x1 + 1, y1 + 1], sample.size, wsol.Gallery.TRUTH);
    if (box) frame(box, map, wsol.Gallery.FOUND);
  }
};
