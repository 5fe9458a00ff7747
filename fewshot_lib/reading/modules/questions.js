// Questions and predictions on a web page, without a kernel: the same texts, replies and hints as
// fewshot_lib/reading/question.py and predict.py. What the page knows of a question is JSON in
// base64, in data-asked: not readable at a glance, and no secret either.
import { BadExpression, evaluate, rounding, _ } from "./formula.js";

const MISSES_BEFORE_HINT = 2;
const STORE = "fewshot-course-answers";
const LETTERS = "ABCDEF";
const STEPS = 20; // of a slider

// ---------------------------------------------------------------- what is remembered

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? {};
  } catch {
    return {}; // no storage here: answers live as long as the page
  }
}

function remember(id, entry) {
  try {
    localStorage.setItem(STORE, JSON.stringify({ ...remembered(), [id]: entry }));
  } catch {
    // no storage here
  }
  tellProgress();
}

function tellProgress() {
  const entries = Object.values(remembered());
  const right = entries.filter((entry) => entry.right).length;
  for (const place of document.querySelectorAll(".fewshot-progress")) {
    place.querySelector("span").textContent = entries.length
      ? _("{right} answered correctly, {all} answered or predicted.", { right, all: entries.length })
      : _("none yet.");
  }
}

// ---------------------------------------------------------------- judging

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
  .replaceAll(">", "&gt;");
const upper = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

function matches(typed, values, asked) {
  if (asked.kind === "expression") {
    return asked.points.every((point, i) =>
      Math.abs(evaluate(typed, point) - values[i]) <= 1e-6 * Math.max(Math.abs(values[i]), 1e-9));
  }
  const [one, other] = [evaluate(typed), values[0]];
  const off = Math.abs(one - other);
  if (off <= 1e-9 * Math.max(1, Math.abs(other))) return true;
  if (Number.isInteger(other)) return false;
  const fine = rounding(typed);
  const rounded = fine && fine[0] >= 2 && off <= fine[1] * (1 + 1e-9);
  return Boolean(rounded) || off <= asked.tolerance * Math.abs(other);
}

function tooCoarse(typed, asked) {
  const fine = rounding(typed);
  if (!fine || fine[0] > 1) return false;
  const [value] = asked.value;
  return !Number.isInteger(value) && Math.abs(evaluate(typed) - value) <= fine[1];
}

// Judge letters ("A", ["A", "C"]) or what was typed; gives {right, text, counts}.
export function judge(asked, given) {
  if (asked.options.length) return judgeChoice(asked, [given].flat());
  try {
    if (matches(given, asked.value, asked)) return { right: true, text: asked.reply, counts: true };
    for (const wrong of asked.wrong) {
      if (matches(given, wrong.value, asked)) {
        return { right: false, text: wrong.reply, counts: true };
      }
    }
    if (asked.kind === "number" && tooCoarse(given, asked)) {
      return { right: false, text: _("Please give at least two digits, as 0.67."), counts: false };
    }
  } catch (error) {
    if (!(error instanceof BadExpression)) throw error;
    return { right: false, text: `${escaped(upper(error.message))}.`, counts: false };
  }
  return { right: false, text: _("Not this."), counts: true };
}

/** Say sentences one after the other; Chinese has no space between them. */
const joined = (parts) => parts.reduce((said, more) => _("{said} {more}", { said, more }));

function judgeChoice(asked, chosen) {
  const letters = LETTERS.slice(0, asked.options.length);
  if (!chosen.length) {
    const text = _("Answer with letters of {letters}.", { letters: [...letters].join(", ") });
    return { right: false, text, counts: false };
  }
  const picked = chosen.map((letter) => [letter, asked.options[letters.indexOf(letter)]]);
  if (asked.kind === "single") {
    return { right: picked[0][1].right, text: picked[0][1].reply, counts: true };
  }
  const say = (some) => joined(some.map(([letter, option]) =>
    _("{letter}: {reply}", { letter, reply: option.reply })));
  const wrong = picked.filter(([, option]) => !option.right);
  if (wrong.length) return { right: false, text: say(wrong), counts: true };
  const missed = asked.options.filter((option) => option.right).length - picked.length;
  if (!missed) return { right: true, text: say(picked), counts: true };
  const more = missed === 1 ? _("So far so good; one more is right.")
    : _("So far so good; {n} more are right.", { n: missed });
  return { right: false, text: joined([say(picked), more]), counts: true };
}

// ---------------------------------------------------------------- forms

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "html") element.innerHTML = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const button = (text, onclick) => make("button", { type: "button", onclick }, text);

function badge(kind, text) {
  return `<b class="fewshot-badge fewshot-${kind}">${text}</b>`;
}

function mountQuestion(box, asked) {
  const reply = make("div", { role: "status", class: "fewshot-reply" });
  let judged = null;
  const forget = () => { judged = null; reply.textContent = ""; };
  function answer(given) {
    if (JSON.stringify(given) === judged) return null;
    judged = JSON.stringify(given);
    const said = judge(asked, given);
    const before = remembered()[asked.id] ?? { misses: 0 };
    const misses = before.misses + 1;
    let text = said.text;
    if (said.counts && said.right) {
      remember(asked.id, { right: true, misses: 0, on: new Date().toISOString().slice(0, 10) });
    } else if (said.counts) {
      remember(asked.id, { ...before, misses });
      if (misses >= MISSES_BEFORE_HINT) {
        text = joined([text, _("Hint: {hint}", { hint: asked.hint })]);
      }
    }
    const mark = !said.counts ? badge("again", _("Please try again"))
      : said.right ? badge("right", `✓ ${_("Right")}`)
      : badge("wrong", `✗ ${_("Not right")}`);
    reply.innerHTML = `${mark} ${text}`;
    return said;
  }
  const form = { single: oneOf, multiple: someOf, number: field, expression: field }[asked.kind];
  const earlier = remembered()[asked.id];
  if (earlier?.right) {
    reply.innerHTML = `${badge("right", "✓")} ${
      _("You answered this correctly on {day}.", { day: earlier.on })}`;
  }
  box.append(...form(asked, answer, forget), reply);
}

function oneOf(asked, answer) {
  const buttons = asked.options.map((option, i) => {
    const one = make("button", {
      type: "button", class: "fewshot-choice", html: `${LETTERS[i]}. ${option.html}`,
      onclick: () => {
        const said = answer(LETTERS[i]);
        if (!said) return;
        for (const other of buttons) other.classList.remove("fewshot-right", "fewshot-wrong");
        one.classList.add(said.right ? "fewshot-right" : "fewshot-wrong");
      },
    });
    return one;
  });
  return buttons;
}

function someOf(asked, answer, forget) {
  const boxes = asked.options.map(() => make("input", { type: "checkbox", onchange: forget }));
  const labels = asked.options.map((option, i) =>
    make("label", { class: "fewshot-choice" }, boxes[i],
      make("span", { html: `${LETTERS[i]}. ${option.html}` })));
  const check = button(_("Check"), () =>
    answer(boxes.flatMap((one, i) => (one.checked ? [LETTERS[i]] : []))));
  return [make("div", { class: "fewshot-note" }, _("One or more are right.")), ...labels, check];
}

function field(asked, answer, forget) {
  const names = asked.names.join(", ");
  const what = names ? _("a formula in {names}", { names }) : _("a number, or a formula for it");
  return typed(_("Your answer"), what, _("Check"), answer, forget);
}

function typed(label, placeholder, word, enter, forget = () => {}) {
  const input = make("input", { type: "text", placeholder, autocomplete: "off", oninput: forget });
  const form = make("form", {
    class: "fewshot-row",
    onsubmit: (event) => { event.preventDefault(); enter(input.value); },
  }, make("label", {}, make("span", {}, label), input), make("button", {}, word));
  return [form];
}

// ---------------------------------------------------------------- predictions

const inWords = (given) => Array.isArray(given)
  ? given.map(([x, y]) => _("{y} at {x}", { y: +y.toFixed(4), x })).join(", ")
  : typeof given === "number" ? `${+given.toPrecision(6)}` : given.replace(/\.$/, "");

function mountPrediction(box, asked) {
  const said = make("div", { role: "status", class: "fewshot-reply" });
  function enter(given) {
    remember(asked.id, { given });
    said.textContent = given === null ? _("Skipped. Read on.")
      : _("You predict: {given}. Read on and compare.", { given: inWords(given) });
  }
  const refuse = () => { said.textContent = _("Please enter {wanted}.", { wanted: asked.wanted }); };
  const earlier = remembered()[asked.id]?.given;
  if (earlier !== undefined && earlier !== null) {
    said.textContent = `✓ ${_("You predicted: {given}.", { given: inWords(earlier) })}`;
  }
  const form = { choice: predictChoice, number: predictNumber, curve: predictCurve }[asked.kind];
  box.append(
    make("div", { class: "fewshot-note" }, _("Nothing depends on it. Predict, then read on.")),
    ...form(asked, enter, refuse, earlier), button(_("Skip"), () => enter(null)), said);
}

function predictChoice(asked, enter) {
  return asked.options.map((option, i) => make("button", {
    type: "button", class: "fewshot-choice", html: `${LETTERS[i]}. ${option.html}`,
    onclick: () => enter(option.text),
  }));
}

function predictNumber(asked, enter, refuse) {
  return typed(_("Your prediction"), asked.wanted, _("Record"), (text) => {
    try {
      const value = evaluate(text);
      if (value >= asked.low && value <= asked.high) enter(value);
      else refuse();
    } catch (error) {
      if (!(error instanceof BadExpression)) throw error;
      refuse();
    }
  });
}

function predictCurve(asked, enter, refuse, earlier) {
  const step = (asked.high - asked.low) / STEPS;
  const sliders = asked.x.map((x, i) => make("input", {
    type: "range", min: asked.low, max: asked.high, step,
    value: earlier?.[i]?.[1] ?? (asked.low + asked.high) / 2,
  }));
  const rows = sliders.map((slider, i) => {
    const shown = make("output", {}, Number(slider.value).toFixed(2));
    slider.addEventListener("input", () => {
      shown.textContent = Number(slider.value).toFixed(2);
    });
    const name = _("{ylabel} at {x} {xlabel}",
      { ylabel: asked.ylabel, x: asked.x[i], xlabel: asked.xlabel });
    return make("label", { class: "fewshot-slider" }, make("span", {}, name), slider, shown);
  });
  const record = () => enter(asked.x.map((x, i) => [x, Number(sliders[i].value)]));
  return [...rows, button(_("Record"), record)];
}

// ---------------------------------------------------------------- the page

// What JSON in base64 says.
export const decode = (text) => JSON.parse(new TextDecoder().decode(
  Uint8Array.from(atob(text), (c) => c.charCodeAt(0))));

// Those that have been read to their end; called again when there are more.
export function mountAll(whole) {
  for (const box of document.querySelectorAll("[data-asked]")) {
    if (!whole(box)) continue;
    const asked = decode(box.dataset.asked);
    delete box.dataset.asked;
    for (const still of box.querySelectorAll(".fewshot-still-form")) still.remove();
    (asked.wanted ? mountPrediction : mountQuestion)(box, asked);
  }
  for (const link of document.querySelectorAll(".fewshot-progress button")) {
    link.onclick = () => {
      localStorage.removeItem(STORE);
      location.reload();
    };
  }
  tellProgress();
}
