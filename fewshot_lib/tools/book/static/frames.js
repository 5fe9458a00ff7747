// Saved pictures of one explorer, side by side, become one picture with a control for each
// parameter. Without this script they stand side by side, some of them folded; on paper, without
// those.
"use strict";

/** Call `mount` again and again while the page is read: what is there answers before the rest is. */
function whileItGrows(mount) {
  mount();
  if (document.readyState === "loading") setTimeout(whileItGrows, 30, mount);
}

/** Say whether an element has been read to its end. */
function whole(element) {
  const closed = (one) => one !== null && (one.nextSibling !== null || closed(one.parentElement));
  return document.readyState !== "loading" || closed(element);
}

/** Read a heading, "shots = 5, distance = cosine", as [["shots", "5"], ["distance", "cosine"]]. */
function setting(heading) {
  return heading.split(/, (?=[^,=]+ = )/).map((part) => part.split(" = "));
}

function control(name, labels, id, choose) {
  const numbers = labels.every((label) => Number.isFinite(Number(label)));
  const row = document.createElement(numbers ? "label" : "fieldset");
  row.className = "fewshot-row";
  if (numbers) {
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: labels.length - 1, step: 1, value: 0 });
    const shown = document.createElement("output");
    const say = () => {
      shown.textContent = labels[slider.value];
      slider.setAttribute("aria-valuetext", labels[slider.value]);
    };
    slider.addEventListener("input", () => { say(); choose(labels[slider.value]); });
    say();
    row.append(`${name} `, slider, shown);
    return row;
  }
  const legend = document.createElement("legend");
  legend.textContent = name;
  row.append(legend);
  labels.forEach((text, i) => {
    const label = document.createElement("label");
    const button = document.createElement("input");
    Object.assign(button, { type: "radio", name: `${id}-${name}`, checked: i === 0 });
    button.addEventListener("change", () => choose(text));
    label.append(button, ` ${text}`);
    row.append(label);
  });
  return row;
}

function enliven(figure, id) {
  const row = figure.querySelector(":scope > div");
  const frames = [...figure.querySelectorAll(":scope > div > div, details [data-place]")];
  if (frames.length < 2) return;
  const folded = figure.querySelector(":scope > details:has([data-place])");
  folded?.querySelectorAll("[data-place]").forEach((frame) => {
    frame.classList.add("fewshot-folded");
  });
  frames.sort((a, b) => a.dataset.place - b.dataset.place);
  row.append(...frames);
  folded?.remove();
  const settings = frames.map((frame) => setting(frame.firstElementChild.textContent));
  const now = new Map(settings[0]);
  const show = () => {
    frames.forEach((frame, i) => {
      const is = settings[i].every(([name, label]) => now.get(name) === label);
      frame.classList.toggle("fewshot-now", is);
    });
  };
  const controls = document.createElement("div");
  controls.className = "fewshot-controls";
  for (const name of now.keys()) {
    const labels = [...new Set(settings.map((one) => new Map(one).get(name)))];
    if (labels.length < 2) continue;
    controls.append(control(name, labels, id, (label) => { now.set(name, label); show(); }));
  }
  const all = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.addEventListener("change", () => figure.classList.toggle("fewshot-one", !box.checked));
  all.append(box, ` ${figure.dataset.sideBySide}`);
  controls.append(all);
  figure.prepend(controls);
  row.setAttribute("aria-live", "polite");
  figure.classList.add("fewshot-one");
  show();
}

let enlivened = 0;
whileItGrows(() => {
  for (const figure of document.querySelectorAll("figure[data-side-by-side]:not([data-live])")) {
    if (!whole(figure)) continue;
    figure.dataset.live = "";
    enlivened += 1;
    enliven(figure, `fewshot-frames-${enlivened}`);
  }
});
