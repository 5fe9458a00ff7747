// What the moving pictures share: a frame with text, things that can be dragged, a plane.

export const COLOURS = ["#0072B2", "#D55E00", "#009E73"]; // blue, vermilion, bluish green
const SVG = "http://www.w3.org/2000/svg";
const SHAPES = [
  "M8 0A8 8 0 1 1 -8 0A8 8 0 1 1 8 0Z", "M-7 -7H7V7H-7Z", "M0 -9L9 7H-9Z", // circle, square, triangle
];
export const STAR = "M0 -12L3 -4L11 -4L5 1L7 9L0 4L-7 9L-5 1L-11 -4L-3 -4Z";
const STYLE = `
.fsm { color: inherit; font: 14px/1.45 system-ui, sans-serif; max-width: 60rem; min-width: 0; }
.fsm * { box-sizing: border-box; }
.fsm-row { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end; margin: .4rem 0; }
.fsm-panel { flex: 1 1 16rem; min-width: 0; margin: 0; }
.fsm-panel > div { position: relative; }
.fsm-panel > figcaption, .fsm table { font: inherit; margin: 0; padding: 0; }
.fsm canvas { position: absolute; display: block; }
.fsm svg { position: relative; display: block; width: 100%; height: auto; overflow: visible; }
.fsm svg text { fill: currentColor; }
.fsm table { border-collapse: collapse; margin: .4rem 0; color: inherit; }
.fsm th, .fsm td { text-align: left; padding: .15rem .7rem .15rem 0; border: 0; background: none;
  color: inherit; font-variant-numeric: tabular-nums; vertical-align: middle; white-space: normal; }
.fsm button, .fsm select { font: inherit; color: inherit; background: transparent; cursor: pointer;
  border: 1px solid currentColor; border-radius: 4px; padding: .3rem .6rem; min-height: 2rem; }
.fsm option { color: #222222; background: white; }
.fsm button:disabled { opacity: .65; cursor: default; border-style: dashed; }
.fsm label { display: inline-flex; flex-direction: column; gap: .1rem; }
.fsm input[type=range] { width: 9rem; min-height: 1.5rem; margin: 0; }
.fsm :is(button, select, input):focus-visible { outline: 3px solid #1a73e8; outline-offset: 2px; }
.fsm[data-dark=yes] :is(button, select, input):focus-visible { outline-color: #8ab4f8; }
.fsm-handle { cursor: grab; touch-action: none; outline: none; }
.fsm-ring { fill: transparent; stroke: none; }
.fsm-handle:focus-visible .fsm-ring, .fsm-ring:focus-visible { stroke: #1a73e8; stroke-width: 3; }
.fsm[data-dark=yes] :is(.fsm-handle:focus-visible .fsm-ring, .fsm-ring:focus-visible) {
  stroke: #8ab4f8; }
.fsm .fsm-bright.fsm-ring:focus-visible { stroke: white; }
.fsm p { margin: .4rem 0; max-width: 44em; }
@media (max-width: 30rem) { .fsm table { font-size: 12px; }
  .fsm th, .fsm td { padding-right: .35rem; } }`;

/** Append an element, of SVG inside SVG, of HTML elsewhere. */
export function add(parent, tag, attributes = {}, text = "") {
  const drawn = tag === "svg" || parent.namespaceURI === SVG;
  const made = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return parent.appendChild(made);
}

/** Make the frame: {root, say}; say(text) shows the text form and has screen readers read it. */
export function frame(el, label) {
  const root = add(el, "div", { class: "fsm", role: "group", "aria-label": label });
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // arrow keys are not the notebook's
  add(root, "style", {}, STYLE);
  const words = document.createElement("p");
  words.setAttribute("role", "status");
  let waiting = 0;
  const say = (text) => {
    if (root.lastChild !== words) root.append(words); // below everything
    clearTimeout(waiting); // what is read aloud waits until the movement pauses
    words.setAttribute("aria-live", "off");
    words.textContent = text;
    waiting = setTimeout(() => {
      words.setAttribute("aria-live", "polite");
      words.textContent = "";
      words.textContent = text;
    }, 400);
  };
  return { root, say };
}

/** Say words in the reader's language: speak(English → translation) comes first, from Python. */
let translations = {};
export function speak(words) { translations = words ?? {}; }
export const _ = (text, gaps = {}) => (translations[text] ?? text)
  .replace(/\{(\w+)\}/g, (whole, name) => gaps[name] ?? whole);

/** Call redraw(dark) now and whenever the page turns light or dark; return how to stop. */
export function follow(root, redraw) {
  let before = null;
  const look = () => {
    let place = root;
    let colour = [255, 255, 255];
    for (; place; place = place.parentElement) {
      const found = getComputedStyle(place).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [];
      if (found.length === 3 || found[3] > 0.5) {
        colour = found;
        break;
      }
    }
    const dark = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] < 110;
    root.dataset.dark = dark ? "yes" : "no";
    if (dark !== before) redraw(dark);
    before = dark;
  };
  const soon = () => requestAnimationFrame(look);
  const seen = new MutationObserver(soon);
  for (const one of [document.documentElement, document.body]) {
    seen.observe(one, { attributes: true, attributeFilter: ["class", "data-theme", "style",
      "data-jp-theme-light"] });
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", soon);
  look();
  soon(); // an element may be drawn before it stands in the page
  return () => {
    seen.disconnect();
    system.removeEventListener("change", soon);
  };
}

/** Let pointer, touch and arrow keys move a handle: to(x, y) in the svg's units, by(dx, dy). */
export function draggable(svg, handle, to, by) {
  handle.classList.add("fsm-handle");
  handle.setAttribute("tabindex", "0");
  let held = null; // where it was taken, seen from where it says it is
  const at = (event) => new DOMPoint(event.clientX, event.clientY)
    .matrixTransform(svg.getScreenCTM().inverse());
  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const point = at(event);
    const [x, y] = handle.place();
    held = [point.x - x, point.y - y];
    handle.setPointerCapture(event.pointerId);
    handle.focus({ focusVisible: false, preventScroll: true });
    event.preventDefault();
  });
  handle.addEventListener("mousedown", (event) => event.stopPropagation()); // nor at its start
  handle.addEventListener("pointermove", (event) => {
    if (held) to(at(event).x - held[0], at(event).y - held[1]);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    handle.addEventListener(end, () => {
      held = null; // a notebook takes the focus to its cell when the mouse is released: take it back
      setTimeout(() => handle.focus({ focusVisible: false, preventScroll: true }), 50);
    });
  }
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const pressed = (event) => {
    const step = keys[event.key];
    if (event.target !== handle || !step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    by(...step.map((one) => one * (event.shiftKey ? 5 : 1)));
  };
  // At the window, before the notebook: Notebook 7 keeps arrow keys for moving between cells.
  handle.addEventListener("focus", () => window.addEventListener("keydown", pressed, true));
  handle.addEventListener("blur", () => window.removeEventListener("keydown", pressed, true));
}

/** Make a panel of the plane, with axes: its svg, where a point lies, and how to paint it. */
export function planePanel(parent, view, title, size = 14) {
  const [left, right, bottom, top] = view.limits;
  const [width, height, margin] = [480, 410, 2.6 * size + 8];
  const figure = add(parent, "figure", { class: "fsm-panel" });
  const caption = add(figure, "figcaption", {}, title);
  const box = add(figure, "div");
  const canvas = add(box, "canvas");
  const whole = [width + margin + 8, height + margin + 8];
  canvas.style.cssText = `left:${(100 * margin) / whole[0]}%;top:${(100 * 8) / whole[1]}%;` +
    `width:${(100 * width) / whole[0]}%;height:${(100 * height) / whole[1]}%`;
  const svg = add(box, "svg", { viewBox: `${-margin} -8 ${whole[0]} ${whole[1]}`, role: "group" });
  svg.setAttribute("aria-label", title);
  const x = (value) => ((value - left) / (right - left)) * width;
  const y = (value) => ((top - value) / (top - bottom)) * height;
  const say = { "aria-hidden": "true", "font-size": size };
  for (let tick = Math.ceil(left); tick <= right; tick += 1) {
    add(svg, "text", { ...say, x: x(tick), y: height + size + 3, "text-anchor": "middle" }, sign(tick, 0));
  }
  for (let tick = Math.ceil(bottom); tick <= top; tick += 1) {
    add(svg, "text", { ...say, x: -6, y: y(tick) + size / 3, "text-anchor": "end" }, sign(tick, 0));
  }
  const [across, up] = view.axes;
  add(svg, "text", { ...say, x: width / 2, y: height + 2.2 * size + 4, "text-anchor": "middle" }, across);
  add(svg, "text", { ...say, transform: `translate(${-1.9 * size} ${height / 2}) rotate(-90)`,
    "text-anchor": "middle" }, up);
  const value = (px, py) => [left + (px / width) * (right - left),
    top - (py / height) * (top - bottom)];
  /**
   * Paint regions. node(x, y) gives [strength 0 … 1, a logit per class, …, a logit per class of a
   * second model] on a grid, from which the pixels are interpolated; the class with the largest
   * logit gives the colour, and a border runs where that class changes: in the colour lines[0] for the
   * first model, dashed in lines[1] for the second. ground is the page's grey, 0 … 255.
   */
  const paint = (columns, node, lines, ground) => {
    const rows = Math.round((columns * height) / width);
    const [across, down, k] = [96, 82, COLOURS.length];
    const m = 1 + k * lines.length;
    const nodes = new Float64Array(across * down * m);
    for (let v = 0, i = 0; v < down; v += 1) {
      for (let u = 0; u < across; u += 1, i += m) {
        nodes.set(node(left + (u / (across - 1)) * (right - left),
          top - (v / (down - 1)) * (top - bottom)), i);
      }
    }
    [canvas.width, canvas.height] = [columns, rows];
    const pixels = new ImageData(columns, rows);
    const keys = lines.map(() => new Uint8Array(columns * rows));
    const colours = COLOURS.map(rgb);
    const value = new Float64Array(m);
    for (let row = 0, i = 0; row < rows; row += 1) {
      const y = ((row + 0.5) / rows) * (down - 1);
      const v = Math.min(Math.floor(y), down - 2);
      for (let column = 0; column < columns; column += 1, i += 1) {
        const x = ((column + 0.5) / columns) * (across - 1);
        const u = Math.min(Math.floor(x), across - 2);
        const [first, p, q] = [(v * across + u) * m, x - u, y - v];
        for (let f = 0; f < m; f += 1) {
          const upper = nodes[first + f] * (1 - p) + nodes[first + m + f] * p;
          const below = first + across * m + f;
          value[f] = upper * (1 - q) + (nodes[below] * (1 - p) + nodes[below + m] * p) * q;
        }
        for (let l = 0; l < lines.length; l += 1) {
          let best = 1 + l * k;
          for (let f = best + 1; f < 1 + (l + 1) * k; f += 1) if (value[f] > value[best]) best = f;
          keys[l][i] = best - 1 - l * k;
        }
        const colour = colours[keys[0][i]];
        for (let c = 0; c < 3; c += 1) {
          pixels.data[4 * i + c] = ground + value[0] * (colour[c] - ground);
        }
        pixels.data[4 * i + 3] = 255;
      }
    }
    keys.forEach((key, l) => {
      for (let row = 0; row < rows - 1; row += 1) {
        for (let column = 0; column < columns - 1; column += 1) {
          const i = row * columns + column;
          if (key[i] === key[i + 1] && key[i] === key[i + columns]) continue;
          const along = key[i] === key[i + columns] ? row : column; // a dash follows its line
          if (l === 1 && along % 14 > 7) continue;
          for (const j of [i, i + 1, i + columns]) pixels.data.set(lines[l], 4 * j);
        }
      }
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  };
  return { figure, caption, svg, x, y, value, paint };
}

/** Draw a class's mark in an svg, with a ring for the focus and an area wide enough for a finger. */
export function mark(svg, shape, colour, label) {
  const group = add(svg, "g", { role: "slider", "aria-label": label });
  add(group, "circle", { r: 19, class: "fsm-ring" });
  const path = typeof shape === "number" ? SHAPES[shape] : shape;
  add(group, "path", { d: path, fill: colour, stroke: "white", "stroke-width": 2 });
  return group;
}

export function button(parent, text, press) {
  const made = add(parent, "button", { type: "button" }, text);
  made.addEventListener("click", press);
  return made;
}

export function choice(parent, title, texts, index, change) {
  const label = add(parent, "label", {}, title);
  const select = add(label, "select");
  texts.forEach((text, i) => add(select, "option", { value: i }, text));
  select.value = index;
  select.addEventListener("change", () => change(Number(select.value)));
  return select;
}

/** Name the largest of some numbers by its index; the first where several are largest. */
export const largest = (values) => values.reduce((k, v, i) => (v > values[k] ? i : k), 0);

/** Return log softmax of a list of numbers. */
export function logSoftmax(logits) {
  const top = Math.max(...logits);
  const total = logits.reduce((sum, one) => sum + Math.exp(one - top), 0);
  return logits.map((one) => one - top - Math.log(total));
}

/** Write a number for a reader, with a true minus sign and no minus zero. */
export const sign = (value, digits = 2) => {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
};

export const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
