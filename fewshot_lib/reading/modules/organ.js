// The organ that moves: the note's network and masked pooling, computed here, on every move.
import { add, button, COLOURS, draggable, follow, frame, sign, speak, _ } from "./common.js";

/** Draw the scene with the organ moved by [right, down]: intensities and the organ's mask. */
export function scene(data, shift, seed) {
  const [height, width] = data.size;
  const image = new Float64Array(height * width);
  const mask = new Uint8Array(height * width);
  const inside = ({ centre, radii }, x, y) =>
    ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 < 1;
  let state = seed;
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      state = (Math.imul(1664525, state) + 1013904223) >>> 0;
      const chance = (2 * state) / 2 ** 32 - 1; // uniform between −1 and 1
      const organ = inside(data.organ, x - shift[0], y - shift[1]);
      mask[i] = organ ? 1 : 0;
      const grey = data.body.grey * inside(data.body, x, y) + data.organ.grey * organ;
      image[i] = Math.min(1, Math.max(0, grey + data.noise * chance));
    }
  }
  return { image, mask };
}

/** Turn an image into feature maps: the mean of 3×3 pixels, times weights, plus biases, ReLU. */
export function encode(data, image) {
  const [height, width] = data.size;
  const { weights, biases } = data.encoder;
  return weights.map((weight, d) => Float64Array.from(image, (_, i) => {
    const [y, x] = [Math.floor(i / width), i % width];
    let [sum, count] = [0, 0];
    for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v += 1) {
      for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u += 1) {
        sum += image[v * width + u];
        count += 1;
      }
    }
    return Math.max(0, (weight * sum) / count + biases[d]);
  }));
}

/** Return, per pixel, the cosine of two stacks of maps; that of a zero vector is 0. */
function cosines(maps, other, scale) {
  return Float64Array.from(maps[0], (_, i) => {
    let [product, a, b] = [0, 0, 0];
    for (let d = 0; d < maps.length; d += 1) {
      const [f, c] = [maps[d][i], other[d].length ? other[d][i] : other[d]];
      product += f * c;
      a += f * f;
      b += c * c;
    }
    return (scale * product) / (Math.max(Math.sqrt(a), 1e-12) * Math.max(Math.sqrt(b), 1e-12));
  });
}

/** Learn from the support: per class a prototype for each position, and one for all of them. */
export function learn(data) {
  const support = scene(data, [0, 0], data.seeds.support);
  const features = encode(data, support.image);
  const position = [0, 1].map((k) => features.map((map) => map.map((f, i) => {
    const weight = support.mask[i] === k ? 1 : 0;
    return (weight * f) / (weight + 1e-5);
  })));
  const masked = [0, 1].map((k) => {
    const count = support.mask.reduce((n, label) => n + (label === k), 0);
    return features.map((map) =>
      map.reduce((sum, f, i) => sum + (support.mask[i] === k ? f : 0), 0) / count);
  });
  return { support, prototypes: { position, masked } };
}

/** Compute both networks' logits, per class and pixel: {position, masked}. */
export function logits(data, { prototypes }, image) {
  const features = encode(data, image);
  return Object.fromEntries(Object.entries(prototypes).map(([name, classes]) =>
    [name, classes.map((one) => cosines(features, one, data.scales[name]))]));
}

/** Say how far two masks agree: 2 |A ∩ B| / (|A| + |B|). */
export function dice(a, b) {
  let [both, sum] = [0, 0];
  a.forEach((one, i) => {
    both += one && b[i] ? 1 : 0;
    sum += (one ? 1 : 0) + (b[i] ? 1 : 0);
  });
  return (2 * both) / sum;
}

/** Compute all that is shown when the organ has moved by [right, down]. */
export function compute(data, shift, learnt = learn(data)) {
  const { support } = learnt;
  const query = scene(data, shift, data.seeds.query);
  const found = logits(data, learnt, query.image);
  const masks = { copied: support.mask };
  for (const [name, [background, organ]] of Object.entries(found)) {
    masks[name] = Uint8Array.from(organ, (one, i) => (one > background[i] ? 1 : 0));
  }
  const scores = {};
  for (const [name, mask] of Object.entries(masks)) scores[name] = dice(mask, query.mask);
  return { support, query, logits: found, masks, dice: scores };
}

/** Keep a move inside the body: whole pixels, the organ's centre inside the smaller ellipse. */
export function allowed(data, [right, down]) {
  const { centre, radii } = data.range;
  const offset = [data.organ.centre[0] + right - centre[0], data.organ.centre[1] + down - centre[1]];
  const far = Math.hypot(offset[0] / radii[0], offset[1] / radii[1]);
  const pulled = offset.map((one) => (far > 1 ? Math.trunc(one / far) : Math.round(one)));
  return pulled.map((one, i) => one + centre[i] - data.organ.centre[i]);
}

/** Trace a mask's outline as an SVG path along the edges of its pixels. */
function outline(mask, [height, width]) {
  const on = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x];
  const next = new Map(); // from a corner to the corners that follow, the mask at the right hand
  const edge = (...ends) => {
    const [from, to] = [`${ends[0]} ${ends[1]}`, `${ends[2]} ${ends[3]}`];
    next.set(from, [...(next.get(from) ?? []), to]);
  };
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (!on(x, y)) continue;
      if (!on(x, y - 1)) edge(x, y, x + 1, y);
      if (!on(x + 1, y)) edge(x + 1, y, x + 1, y + 1);
      if (!on(x, y + 1)) edge(x + 1, y + 1, x, y + 1);
      if (!on(x - 1, y)) edge(x, y + 1, x, y);
    }
  }
  let path = "";
  while (next.size) {
    let [corner] = next.keys();
    path += `M${corner}`;
    while (next.has(corner)) {
      const following = next.get(corner);
      const to = following.pop();
      if (!following.length) next.delete(corner);
      path += `L${to}`;
      corner = to;
    }
    path += "Z";
  }
  return path;
}

const looks = () => ({
  position: { colour: COLOURS[1], dash: "6 4", name: _("the note's network"), line: _("dashed") },
  masked: { colour: "#56B4E9", dash: "", name: _("masked pooling"), line: _("solid") },
  copied: { colour: "#F0E442", dash: "1.5 4", name: _("the support's mask, copied"),
    line: _("dotted") },
});

/** Lay two strokes, a dark one below, so that a line is seen on every grey. */
function line(svg, { colour, dash }) {
  const common = { fill: "none", "vector-effect": "non-scaling-stroke", "stroke-linejoin": "round" };
  const dark = add(svg, "path", { ...common, stroke: "#111111", "stroke-width": 4.5 });
  const light = add(svg, "path", { ...common, stroke: colour, "stroke-width": 2.5,
    "stroke-dasharray": dash, "stroke-linecap": dash.startsWith("1") ? "round" : "butt" });
  return (path) => [dark, light].forEach((one) => one.setAttribute("d", path));
}

function picture(parent, data, title) {
  const [height, width] = data.size;
  const figure = add(parent, "figure", { class: "fsm-panel" });
  add(figure, "figcaption", {}, title);
  const box = add(figure, "div");
  const canvas = add(box, "canvas", { width, height });
  canvas.style.cssText = "inset:0;width:100%;height:100%;image-rendering:pixelated";
  const svg = add(box, "svg", { viewBox: `0 0 ${width} ${height}`, role: "group" });
  svg.setAttribute("aria-label", title);
  const paint = (image) => {
    const pixels = new ImageData(width, height);
    image.forEach((grey, i) => {
      const level = 255 * Math.min(1, grey / data.white);
      pixels.data.set([level, level, level, 255], 4 * i);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  };
  return { svg, paint };
}

export function render({ model, el }) {
  const data = model.get("data");
  const learnt = learn(data);
  speak(data.words);
  const { root, say } = frame(el, _("The organ that moves"));
  add(root, "p", {}, _("Drag the organ in the query, or choose it and use the arrow keys."));
  const LOOKS = looks();
  const panels = add(root, "div", { class: "fsm-row" });
  const left = picture(panels, data, _("Support: one labelled example"));
  const right = picture(panels, data, _("Query: what each network draws"));
  const known = line(left.svg, LOOKS.copied);
  const drawn = Object.fromEntries(["copied", "position", "masked"].map((name) =>
    [name, line(right.svg, LOOKS[name])]));
  const [rx, ry] = data.organ.radii.map((radius) => radius + 2);
  const handle = add(right.svg, "ellipse", { rx, ry,
    class: "fsm-ring fsm-bright", "vector-effect": "non-scaling-stroke", role: "slider",
    "aria-label": _("organ in the query, pixels to the right"), "aria-valuemin": -data.size[1],
    "aria-valuemax": data.size[1] });
  const row = add(root, "div", { class: "fsm-row" });
  const table = add(root, "table");
  add(table, "caption", { style: "text-align:left;caption-side:top" }, _("Dice with the query's organ"));
  const cells = Object.fromEntries(Object.entries(LOOKS).map(([name, look]) => {
    const tr = add(add(table, "tbody"), "tr");
    const swatch = add(add(tr, "td"), "svg", { viewBox: "0 0 40 10", "aria-hidden": "true",
      style: "width:40px" });
    line(swatch, look)("M2 5H38");
    add(tr, "th", { scope: "row", style: "font-weight:normal" },
      _("{name} ({line})", { name: look.name, line: look.line }));
    return [name, add(tr, "td")];
  }));
  let shift = [0, 0];
  const show = (wanted) => {
    shift = allowed(data, wanted);
    const seen = compute(data, shift, learnt);
    left.paint(seen.support.image);
    right.paint(seen.query.image);
    known(outline(seen.support.mask, data.size));
    for (const [name, mask] of Object.entries(seen.masks)) {
      drawn[name](outline(mask, data.size));
      cells[name].textContent = sign(seen.dice[name]);
    }
    const place = [0, 1].map((i) => data.organ.centre[i] + shift[i] + 0.5);
    handle.setAttribute("cx", place[0]);
    handle.setAttribute("cy", place[1]);
    handle.place = () => place;
    const [x, y] = shift;
    const where = x || y
      ? [x && (x > 0 ? _("{n} pixels to the right", { n: x }) : _("{n} pixels to the left", { n: -x })),
        y && (y > 0 ? _("{n} pixels down", { n: y }) : _("{n} pixels up", { n: -y }))]
        .filter(Boolean).join(_(", "))
      : _("at the support's place");
    handle.setAttribute("aria-valuenow", x);
    handle.setAttribute("aria-valuetext", where);
    const { position, masked, copied } = seen.dice;
    const lies = x || y ? _("The organ of the query lies {where} of the support's organ.", { where })
      : _("The organ of the query lies {where}.", { where });
    const dice = _("Dice: {position} for the note's network, {masked} for masked pooling, " +
      "{copied} for a copy of the support's mask.",
      { position: sign(position), masked: sign(masked), copied: sign(copied) });
    say(_("{said} {more}", { said: lies, more: dice }));
  };
  let playing = 0;
  const stop = () => { cancelAnimationFrame(playing); playing = 0; };
  const go = (wanted) => { stop(); show(wanted); };
  draggable(right.svg, handle,
    (x, y) => go([x - 0.5 - data.organ.centre[0], y - 0.5 - data.organ.centre[1]]),
    (dx, dy) => go([shift[0] + dx, shift[1] + dy]));
  button(row, _("Move it for me"), () => {
    stop();
    const end = data.journey;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      show(end);
      return;
    }
    const begun = performance.now();
    const step = (now) => {
      const share = Math.min(1, Math.max(0, (now - begun) / 2500));
      show(end.map((one) => share * one));
      playing = share < 1 ? requestAnimationFrame(step) : 0;
    };
    playing = requestAnimationFrame(step);
  });
  button(row, _("Put it back"), () => go([0, 0]));
  show(data.journey); // so that the picture says at once what it is about
  const rest = follow(root, () => {});
  return () => { stop(); rest(); };
}

export default { render };
