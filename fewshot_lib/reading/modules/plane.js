// The prototype plane: support points make prototypes, a distance makes them regions.
import { add, button, choice, COLOURS, draggable, follow, frame, largest, logSoftmax, mark, planePanel, rgb, sign, speak, STAR, _ } from "./common.js";

/** Average each class's points: the prototypes [[x, y], …]. */
export function prototypes(points, nWay) {
  return Array.from({ length: nWay }, (_, k) => {
    const own = points.filter((point) => point.label === k);
    return [0, 1].map((d) => own.reduce((sum, point) => sum + point.at[d], 0) / own.length);
  });
}

/** Say how alike a query and a prototype are: large means alike. */
export function similarity(z, c, distance) {
  const squared = (z[0] - c[0]) ** 2 + (z[1] - c[1]) ** 2;
  if (distance === "squared_euclidean") return -squared;
  if (distance === "euclidean") return -Math.sqrt(squared);
  const length = Math.hypot(...z) * Math.hypot(...c); // a zero vector has no direction: cosine 0
  return length > 0 ? Math.min(1, Math.max(-1, (z[0] * c[0] + z[1] * c[1]) / length)) : 0;
}

/** Return log p(y = k | z) = log softmax_k(s(z, c_k) / τ). */
export function logPosterior(z, centres, distance, temperature) {
  return logSoftmax(centres.map((c) => similarity(z, c, distance) / temperature));
}

const distances = () => ({
  squared_euclidean: _("squared Euclidean"), euclidean: _("Euclidean (not squared)"),
  cosine: _("cosine"),
});

export function render({ model, el }) {
  const data = model.get("data");
  const { names, limits } = data;
  speak(data.words);
  const DISTANCES = distances();
  const { root, say } = frame(el, _("The prototype plane"));
  add(root, "p", {}, _("Drag an example or the query (the diamond). With the keyboard: " +
    "Tab to it, arrow keys to move it (with Shift five times as far), Delete to remove it."));
  const controls = add(root, "div", { class: "fsm-row" });
  const body = add(root, "div", { class: "fsm-row", style: "align-items:start" });
  const panel = planePanel(body, data, _("Regions of the most probable class"));
  panel.figure.style.flex = "2 1 20rem";
  const side = add(body, "div", { style: "flex:1 1 15rem" });
  const table = add(side, "table");
  const head = add(add(table, "thead"), "tr");
  for (const text of [_("class"), _("examples"), _("prototype"), _("p(class | query)").replaceAll(" ", "\u00a0")]) {
    add(head, "th", { scope: "col" }, text);
  }
  const cells = names.map((name, k) => {
    const tr = add(add(table, "tbody"), "tr");
    const th = add(tr, "th", { scope: "row", style: "font-weight:normal;white-space:nowrap" });
    const svg = add(th, "svg", { viewBox: "-12 -12 24 24", "aria-hidden": "true",
      style: "display:inline-block;width:20px;vertical-align:middle;margin-right:4px" });
    mark(svg, k, COLOURS[k], "").removeAttribute("role");
    add(th, "span", {}, name);
    return [0, 1, 2].map(() => add(tr, "td", { style: "white-space:nowrap" }));
  });
  const state = { distance: data.distances[0], temperature: 1, dark: false };
  const shared = add(panel.svg, "g", { "aria-hidden": "true" }); // stars and the lines to them
  let points = [];
  let query = null;
  let chosen = null;

  const say2 = (at) => at.map((one, i) => `${data.axes[i]} ${sign(one)}`).join(_(", "));
  const within = ([x, y]) => [Math.min(limits[1], Math.max(limits[0], x)),
    Math.min(limits[3], Math.max(limits[2], y))];

  function place(one, at) {
    one.at = within(at);
    const [x, y] = [panel.x(one.at[0]), panel.y(one.at[1])];
    one.mark.setAttribute("transform", `translate(${x} ${y})`);
    one.mark.place = () => [x, y];
    one.mark.setAttribute("aria-valuenow", sign(one.at[0]).replace("−", "-"));
    one.mark.setAttribute("aria-valuetext", say2(one.at));
  }

  function put(label, at, shape, colour, name) {
    const one = { label, mark: mark(panel.svg, shape, colour, name) };
    one.mark.setAttribute("aria-valuemin", limits[0]);
    one.mark.setAttribute("aria-valuemax", limits[1]);
    draggable(panel.svg, one.mark,
      (x, y) => { place(one, panel.value(x, y)); show(); },
      (dx, dy) => { place(one, [one.at[0] + data.step * dx, one.at[1] - data.step * dy]); show(); });
    one.mark.addEventListener("focus", () => { chosen = one; allow(); });
    one.mark.addEventListener("keydown", (event) => {
      if (event.key !== "Delete" && event.key !== "Backspace") return;
      event.preventDefault();
      event.stopPropagation();
      remove();
    });
    place(one, at);
    return one;
  }

  function addPoint(label, at) {
    const n = points.filter((point) => point.label === label).length + 1;
    points.push(put(label, at, label, COLOURS[label], _("{name}, example {n}", { name: names[label], n })));
    return points.at(-1);
  }

  const spare = () => points.includes(chosen)
    && points.filter((point) => point.label === chosen.label).length > 1;
  const allow = () => { removing.disabled = !spare(); };

  function remove() {
    if (!spare()) {
      say(_("It stays: a class needs at least one example, or it has no prototype."));
      return;
    }
    const { label } = chosen;
    chosen.mark.remove();
    points = points.filter((point) => point !== chosen);
    points.filter((point) => point.label === label).forEach((point, i) => {
      point.mark.setAttribute("aria-label", _("{name}, example {n}", { name: names[label], n: i + 1 }));
    });
    points.find((point) => point.label === label).mark.focus();
    show();
  }

  function start() {
    for (const one of [...points, query].filter(Boolean)) one.mark.remove();
    points = [];
    data.shots.forEach((own, label) =>
      own.slice(0, data.n_shots).forEach((at) => addPoint(label, at)));
    query = put(-1, data.query, "M0 -10L10 0L0 10L-10 0Z", "#222222", _("query"));
    chosen = null;
    show();
  }

  function paint() {
    const centres = prototypes(points, names.length);
    panel.paint(data.columns, (x, y) => {
      const logs = logPosterior([x, y], centres, state.distance, state.temperature);
      const sure = Math.exp(Math.max(...logs));
      return [0.1 + 0.5 * Math.max(0, (sure - 1 / 3) * 1.5), ...logs]; // paler where less sure
    }, [rgb(state.dark ? "#ebebeb" : "#222222")], state.dark ? 24 : 255);
    shared.replaceChildren();
    const stroke = state.dark ? "#ebebeb" : "#222222";
    for (const { at, label } of points) {
      const [x, y] = centres[label];
      add(shared, "line", { x1: panel.x(at[0]), y1: panel.y(at[1]), x2: panel.x(x), y2: panel.y(y),
        stroke, "stroke-width": 1, "stroke-dasharray": "3 3" });
    }
    centres.forEach(([x, y], k) => add(shared, "path", { d: STAR, fill: COLOURS[k], stroke,
      "stroke-width": 1.5, transform: `translate(${panel.x(x)} ${panel.y(y)})` }));
  }

  function show() {
    paint();
    allow();
    const centres = prototypes(points, names.length);
    const logs = logPosterior(query.at, centres, state.distance, state.temperature);
    const shares = logs.map((one) => sign(Math.exp(one)));
    centres.forEach((c, k) => {
      const n = points.filter((point) => point.label === k).length;
      [n, `(${sign(c[0])}, ${sign(c[1])})`, shares[k]].forEach((text, i) => {
        cells[k][i].textContent = text;
      });
    });
    say(_("The query at {place} is most probably {name}: {shares}. Distance: {distance}; " +
      "temperature {temperature}.", { place: say2(query.at), name: names[largest(logs)],
      shares: names.map((name, k) => `${name} ${shares[k]}`).join(_(", ")),
      distance: DISTANCES[state.distance], temperature: state.temperature }));
  }

  choice(controls, _("distance"), data.distances.map((one) => DISTANCES[one]), 0, (i) => {
    state.distance = data.distances[i];
    show();
  });
  choice(controls, _("temperature τ"), data.temperatures, data.temperatures.indexOf(1), (i) => {
    state.temperature = data.temperatures[i];
    show();
  });
  names.forEach((name, k) => button(controls, _("Add a {name}", { name }), () => {
    const n = points.filter((point) => point.label === k).length;
    addPoint(k, data.shots[k][n % data.shots[k].length]).mark.focus();
    show();
  }));
  const removing = button(controls, _("Remove the chosen"), () => remove());
  button(controls, _("Start again"), start);
  return follow(root, (dark) => {
    state.dark = dark;
    if (query) paint();
    else start();
  });
}

export default { render };
