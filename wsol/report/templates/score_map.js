// From a stored heatmap to a score map by a protocol's rules: what wsol/localization/score_map.py does, in the browser.
"use strict";

wsol.bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// Values of a stored heatmap: half precision, or bytes between two values.
wsol.heatmapOf = ({ shape, halves, bytes, low, high }) => {
  const [height, width] = shape;
  if (bytes !== undefined) {
    const levels = wsol.bytesOf(bytes);
    return { width, height, values: Float64Array.from(levels, (level) => low + (level / 255) * (high - low)) };
  }
  const view = new DataView(wsol.bytesOf(halves).buffer);
  const values = new Float64Array(width * height);
  for (let i = 0; i < values.length; i += 1) {
    const bits = view.getUint16(2 * i, true), exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
    values[i] = bits & 0x8000 ? -size : size;
  }
  return { width, height, values };
};

// For each new place along one axis: where on the old line to look, with which weights. Pixel centers, corners not aligned.
wsol.taps = (old, fresh, interpolation) => {
  const inside = (i) => Math.min(Math.max(i, 0), old - 1), A = -0.75;
  const near = (x) => ((A + 2) * x - (A + 3)) * x * x + 1, far = (x) => ((A * x - 5 * A) * x + 8 * A) * x - 4 * A;
  return Array.from({ length: fresh }, (_, i) => {
    if (interpolation === "nearest") return [[Math.floor((i * old) / fresh)], [1]];
    const place = ((i + 0.5) * old) / fresh - 0.5;
    if (interpolation === "bilinear") {
      const at = Math.max(place, 0), first = Math.floor(at);
      return [[inside(first), inside(first + 1)], [1 - (at - first), at - first]];
    }
    const first = Math.floor(place), t = place - first;
    return [[-1, 0, 1, 2].map((step) => inside(first + step)), [far(1 + t), near(t), near(1 - t), far(2 - t)]];
  });
};

wsol.resized = (map, width, height, interpolation) => {
  if (map.width === width && map.height === height) return map.values.slice();
  const columns = wsol.taps(map.width, width, interpolation), rows = wsol.taps(map.height, height, interpolation);
  const found = new Float64Array(width * height), line = new Float64Array(map.width);
  rows.forEach(([from, weights], y) => {
    for (let x = 0; x < map.width; x += 1) {
      line[x] = 0;
      for (let k = 0; k < from.length; k += 1) line[x] += weights[k] * map.values[from[k] * map.width + x];
    }
    for (let x = 0; x < width; x += 1) {
      const [places, shares] = columns[x];
      let mixed = 0;
      for (let k = 0; k < places.length; k += 1) mixed += shares[k] * line[places[k]];
      found[y * width + x] = mixed;
    }
  });
  return found;
};

wsol.normalized = (map, width, height, rules) => {
  const constant = map.values.every((value) => value === map.values[0]);
  const values = wsol.resized(map, width, height, rules.interpolation);
  const low = rules.normalization === "minmax" ? values.reduce((a, b) => Math.min(a, b), Infinity) : 0;
  let top = 0;
  for (let i = 0; i < values.length; i += 1) { values[i] = Math.max(values[i] - low, 0); top = Math.max(top, values[i]); }
  const empty = constant || !(top > 0);
  for (let i = 0; i < values.length; i += 1) values[i] = empty ? 0 : values[i] / top;
  return values;
};

// The center baseline: a Gaussian, σ a quarter of the size in each direction.
wsol.center = (width, height) => {
  const along = (n) => Array.from({ length: n }, (_, i) => Math.exp(-0.5 * ((i - (n - 1) / 2) / (n / 4)) ** 2));
  const across = along(width), down = along(height), values = new Float64Array(width * height);
  for (let y = 0; y < height; y += 1) for (let x = 0; x < width; x += 1) values[y * width + x] = down[y] * across[x];
  return { width, height, values };
};

// Score map (height × width) of a method for a sample, zero where the view did not look; null without a heatmap.
wsol.scoreMap = (sample, method, rules, width, height) => {
  if (method.function === "full") return new Float64Array(width * height).fill(1);
  if (method.function === "center") return wsol.normalized(wsol.center(width, height), width, height, rules);
  const stored = sample.maps[method.name];
  if (!stored) return null;
  // Somebody's score maps are resized, not normalized.
  if (method.score_map) return wsol.resized(wsol.heatmapOf(stored), width, height, rules.interpolation).map((value) => Math.min(Math.max(value, 0), 1));
  const [x0, y0, x1, y1] = sample.rectangle;
  const span = (from, to, scale, length) => {
    const start = Math.min(Math.floor(from * scale + 0.5), length - 1);
    return [start, Math.max(Math.floor(to * scale + 0.5), start + 1)];
  };
  const [left, right] = span(x0, x1, width / sample.size[0], width), [top, bottom] = span(y0, y1, height / sample.size[1], height);
  const inside = wsol.normalized(wsol.heatmapOf(stored), right - left, bottom - top, rules);
  if (right - left === width && bottom - top === height) return inside;
  const values = new Float64Array(width * height);
  for (let y = top; y < bottom; y += 1) {
    values.set(inside.subarray((y - top) * (right - left), (y - top + 1) * (right - left)), y * width + left);
  }
  return values;
};

// How many pixels pass the cut at τ, and which: quantized as the protocol says.
wsol.passes = (rules, tau) => {
  const { levels, pixel_comparison: comparison } = rules;
  return (values) => {
    const steps = levels === null ? 0 : levels - 1;
    let top = 0;
    for (let i = 0; i < values.length; i += 1) top = Math.max(top, values[i]);
    top = steps ? Math.trunc(top * steps) : top;
    const cut = steps ? Math.trunc(tau * top) : tau * top, found = new Uint8Array(values.length);
    let count = 0;
    for (let i = 0; i < values.length; i += 1) {
      const value = steps ? Math.trunc(values[i] * steps) : values[i];
      const above = top > 0 && (comparison === ">" ? value > cut : value >= cut);
      found[i] = above ? 1 : 0;
      count += found[i];
    }
    return { found, count };
  };
};
