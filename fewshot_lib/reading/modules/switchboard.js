// The switchboard: three mixtures share the network's posterior until a condition is broken.
import { add, button, choice, COLOURS, draggable, follow, frame, largest, logSoftmax, mark, planePanel, rgb, sign, speak, STAR, _ } from "./common.js";

/** All conditions hold. */
export const OFF = {
  prior: 1, width: 1, stretch: 1, lumps: false, distance: "squared_euclidean", shots: null,
};

/** Return the three mixtures that share a posterior: means, variance, log priors, scale. */
export function mixtures(data) {
  const middle = [0, 1].map((d) => data.centres.reduce((sum, c) => sum + c[d], 0) / 3);
  const apart = data.centres.map((c) => c.map((one, d) => one - middle[d]));
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const means = (change) => apart.map((c) => c.map((one, d) => change(one, d) + middle[d]));
  return [
    { name: _("centres c, variance ½"), means: means((one) => one), variance: 0.5, scale: 1,
      weights: apart.map(() => 0) },
    { name: _("centres c + a/2, variance ½"), means: means((one, d) => one + data.tilt[d] / 2),
      variance: 0.5, scale: 1, weights: apart.map((c) => dot(c, data.tilt)) },
    { name: _("centres c/2, variance ¼"), means: means((one) => one / 2), variance: 0.25, scale: 0.5,
      weights: apart.map((c) => -dot(c, c) / 2) },
  ];
}

/** Return the function z → log N(z; mean, diag(stretch, 1) · variance). */
function logNormal(mean, variance, stretch) {
  const constant = (Math.log(stretch) + 2 * Math.log(variance * 2 * Math.PI)) / 2;
  return ([x, y]) =>
    -((x - mean[0]) ** 2 / stretch + (y - mean[1]) ** 2) / (2 * variance) - constant;
}

/** Return the function z → log π_k + log p(z | y = k), per class, of a mixture as switched. */
export function logJoint(data, mixture, { prior, width, stretch, lumps }) {
  const { means, variance, scale, weights } = mixture;
  const priors = logSoftmax(weights.map((w, k) => w + (k === 0 ? Math.log(prior) : 0)));
  const densities = means.map((mean, k) => {
    if (k !== 1 || !lumps) return logNormal(mean, variance * (k === 0 ? width : 1), stretch);
    const [a, b] = data.lumps.map((offset) =>
      logNormal(mean.map((one, d) => one + scale * offset[d]), variance, stretch));
    return (z) => Math.log((Math.exp(a(z)) + Math.exp(b(z))) / 2);
  });
  return (z) => densities.map((density, k) => priors[k] + density(z));
}

/** Return the network's prototypes: the centres, or means of so many examples of each. */
export function prototypes(data, { width, stretch, shots }) {
  return data.centres.map((c, k) => c.map((one, d) => {
    const variance = 0.5 * (d === 0 ? stretch : 1) * (k === 0 ? width : 1);
    return one + (shots ? data.noise[k][d] * Math.sqrt(variance / shots) : 0);
  }));
}

/** Return the network's log p(y = k | z); it knows of no switch but its own two. */
export function network(centres, distance, z) {
  return logSoftmax(centres.map((c) => {
    const squared = (z[0] - c[0]) ** 2 + (z[1] - c[1]) ** 2;
    return distance === "euclidean" ? -Math.sqrt(squared) : -squared;
  }));
}

/** Compare over the plane: per mixture the largest |Δp| and the share decided otherwise. */
export function compare(data, switches) {
  const [left, right, bottom, top] = data.limits;
  const all = mixtures(data);
  const centres = prototypes(data, switches);
  const joints = all.map((mixture) => logJoint(data, mixture, switches));
  const found = all.map(() => ({ apart: 0, otherwise: 0, highest: 0 }));
  const n = data.grid;
  for (let row = 0; row < n; row += 1) {
    for (let column = 0; column < n; column += 1) {
      const z = [left + (column / (n - 1)) * (right - left), bottom + (row / (n - 1)) * (top - bottom)];
      const asked = network(centres, switches.distance, z);
      joints.forEach((log, i) => {
        const joint = log(z);
        const density = joint.reduce((sum, one) => sum + Math.exp(one), 0);
        const truth = logSoftmax(joint);
        const gaps = truth.map((one, k) => Math.abs(Math.exp(one) - Math.exp(asked[k])));
        const gap = Math.max(...gaps);
        found[i].apart = Math.max(found[i].apart, gap);
        const changed = gap > 1e-9 && largest(truth) !== largest(asked); // not by rounding alone
        found[i].otherwise += changed ? 1 / n ** 2 : 0;
        found[i].highest = Math.max(found[i].highest, density);
      });
    }
  }
  return found;
}

export function render({ model, el }) {
  const data = model.get("data");
  speak(data.words);
  const { root, say } = frame(el, _("Three mixtures, one posterior, and switches"));
  const all = mixtures(data);
  let switches = { ...OFF };
  let dark = false;
  let found = [];
  let at = data.query;
  const controls = add(root, "div", { class: "fsm-row" });
  const times = (values) => values.map((one) => `× ${one}`);
  const squares = { squared_euclidean: _("squared"), euclidean: _("not squared") };
  const options = [
    ["prior", _("prior (liver : spleen : kidney)"), data.priors, data.priors.map((p) => `× ${p} : 1 : 1`)],
    ["width", _("variance of the liver"), data.widths, times(data.widths)],
    ["stretch", _("variance of brightness"), data.stretches, times(data.stretches)],
    ["lumps", _("spleens"), [false, true], [_("in one lump"), _("in two lumps")]],
    ["distance", _("network: distance"), data.distances, data.distances.map((d) => squares[d])],
    ["shots", _("network: prototypes"), data.shots,
      data.shots.map((n) => (n ? _("means of {n} each", { n }) : _("true centres")))],
  ];
  const selects = options.map(([name, title, values, texts]) => choice(controls, title, texts, 0,
    (i) => { switches = { ...switches, [name]: values[i] }; update(); }));
  button(controls, _("All off"), () => {
    switches = { ...OFF };
    selects.forEach((select) => { select.value = 0; });
    update();
  });
  add(root, "p", {}, _("Colour: which class, and how dense. Solid line: the mixture's border. Dashed " +
    "line: the network's border, the same in all three. Drag the diamond (or use the arrow keys) to read " +
    "the probabilities at a point."));
  const row = add(root, "div", { class: "fsm-row", style: "align-items:start" });
  const panels = all.map((mixture) => {
    const panel = planePanel(row, data, mixture.name, 21);
    const stars = mixture.means.map(([x, y], k) => add(panel.svg, "path", { d: STAR,
      fill: COLOURS[k], stroke: "white", "stroke-width": 1.5,
      transform: `translate(${panel.x(x)} ${panel.y(y)}) scale(1.3)`, "aria-hidden": "true" }));
    const probe = mark(panel.svg, "M0 -12L12 0L0 12L-12 0Z", "#222222", _("point, {name}", { name: mixture.name }));
    probe.setAttribute("aria-valuemin", data.limits[0]);
    probe.setAttribute("aria-valuemax", data.limits[1]);
    draggable(panel.svg, probe, (x, y) => move(panel.value(x, y)),
      (dx, dy) => move([at[0] + data.step * dx, at[1] - data.step * dy]));
    return { ...panel, stars, probe };
  });
  const table = add(root, "table");
  const head = add(add(table, "thead"), "tr");
  for (const text of [_("at the diamond"), ...data.names, _("largest |Δp|"),
    _("plane decided otherwise")]) {
    add(head, "th", { scope: "col" }, text);
  }
  const lines = [_("the network"), ...all.map((one) => one.name)].map((name) => {
    const tr = add(add(table, "tbody"), "tr");
    add(tr, "th", { scope: "row", style: "font-weight:normal" }, name);
    return [0, 1, 2, 3, 4].map(() => add(tr, "td", {}, "–"));
  });

  function move([x, y]) {
    const [left, right, bottom, top] = data.limits;
    at = [Math.min(right, Math.max(left, x)), Math.min(top, Math.max(bottom, y))];
    tell();
  }

  function paint() {
    const centres = prototypes(data, switches);
    const [ink, ground] = dark ? ["#ebebeb", 24] : ["#222222", 255];
    panels.forEach((panel, i) => {
      const log = logJoint(data, all[i], switches);
      panel.paint(data.columns, (x, y) => {
        const joint = log([x, y]);
        const density = joint.reduce((sum, one) => sum + Math.exp(one), 0);
        const strength = 0.08 + 0.72 * Math.min(1, Math.sqrt(density / found[i].highest));
        return [strength, ...joint, ...network(centres, switches.distance, [x, y])];
      }, [rgb(ink), rgb(dark ? "#F0E442" : "#CC79A7")], ground);
    });
  }

  function tell() {
    const asked = network(prototypes(data, switches), switches.distance, at);
    const truths = all.map((one) => logSoftmax(logJoint(data, one, switches)(at)));
    [asked, ...truths].forEach((logs, i) => {
      logs.forEach((one, k) => { lines[i][k].textContent = sign(Math.exp(one)); });
    });
    found.forEach(({ apart, otherwise }, i) => {
      lines[i + 1][3].textContent = sign(apart);
      lines[i + 1][4].textContent = `${sign(100 * otherwise, 0)} %`;
    });
    const where = [0, 1].map((i) => `${data.axes[i]} ${sign(at[i])}`).join(_(", "));
    panels.forEach(({ x, y, probe }) => {
      const [px, py] = [x(at[0]), y(at[1])];
      probe.setAttribute("transform", `translate(${px} ${py})`);
      probe.place = () => [px, py];
      probe.setAttribute("aria-valuenow", at[0].toFixed(2));
      probe.setAttribute("aria-valuetext", where);
    });
    const on = options.flatMap(([name, title, values, texts]) =>
      (switches[name] === OFF[name] ? [] : `${title}: ${texts[values.indexOf(switches[name])]}`));
    const gaps = found.map(({ apart }) => apart);
    const amount = Math.max(...gaps) < 1e-6
      ? _("The three mixtures and the network agree: no probability differs by more than 0.000001.")
      : _("From the network, a probability differs by up to {gaps} in the three mixtures; {shares} " +
        "of the plane is decided otherwise.", { gaps: gaps.map((g) => sign(g)).join(_(", ")),
        shares: found.map((one) => `${sign(100 * one.otherwise, 0)} %`).join(_(", ")) });
    const held = on.length ? _("{switches}.", { switches: on.join(_("; ")) }) : _("All conditions hold.");
    say(_("{said} {more}", { said: held, more: amount }));
  }

  let waiting = 0;
  function update() {
    found = compare(data, switches);
    tell();
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(paint); // takes longer than the words, which are there by then
  }

  return follow(root, (now) => { dark = now; update(); });
}

export default { render };
