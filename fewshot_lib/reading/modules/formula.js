// Read a formula that a reader typed: the grammar of fewshot_lib/reading/expression.py.
// What can mean one thing is read as meant (2n, 0,5, π, ½, ²); what can mean two is asked back.

const FUNCTIONS = {
  abs: Math.abs, exp: Math.exp, ln: Math.log, log: Math.log, sqrt: Math.sqrt,
};
const CONSTANTS = { pi: Math.PI, e: Math.E };
const LONGEST = 200;
const POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ";
const SIGNS = {
  "π": " pi ", "½": "(1/2)", "¼": "(1/4)", "¾": "(3/4)",
  ...Object.fromEntries([..."−–—‐‑﹣"].map((c) => [c, "-"])),
  ...Object.fromEntries([..."×·⋅∙∗✕⨯•"].map((c) => [c, "*"])),
  ...Object.fromEntries([..."÷∕⁄"].map((c) => [c, "/"])),
};
const TOKEN = new RegExp(
  "\\s*(?:((?:\\d+\\.?\\d*|\\.\\d+)(?:[eE][+-]?\\d+)?)"
  + "|([\\p{L}\\p{Nl}_][\\p{L}\\p{N}\\p{M}_]*)|(\\*\\*|\\S))", "gu");

/** Say words in the reader's language: speak(English → translation) comes first, from Python. */
let translations = {};
export function speak(words) { translations = words ?? {}; }
export const _ = (text, gaps = {}) => (translations[text] ?? text)
  .replace(/\{(\w+)\}/g, (whole, name) => gaps[name] ?? whole);

export class BadExpression extends Error {}

const quoted = (text) => `'${text}'`;
const upright = (text) => [...text].map((c) => SIGNS[c] ?? c).join("");
const unreadable = (text) =>
  new BadExpression(_("{text} cannot be read as a number or formula", { text: quoted(text.trim()) }));

function digit(character) {
  const code = character.codePointAt(0);
  let value = 0;
  while (value < 9 && /\p{Nd}/u.test(String.fromCodePoint(code - value - 1))) value += 1;
  return String(value);
}

export function tidy(text) {
  let t = text.replace(new RegExp(`[${POWERS}]+`, "gu"), (found) =>
    `^(${[...found].map((c) => "0123456789-n"[POWERS.indexOf(c)]).join("")})`);
  t = upright(upright(t).normalize("NFKC"));
  t = t.replace(/\p{Nd}/gu, (c) => (c >= "0" && c <= "9" ? c : digit(c)));
  t = t.replace(/^\s*[=≈~]/u, "").trim();
  t = t.replace(/√\s*([\p{L}\p{N}_]+(?:\.\d+)?)/gu, "sqrt($1)").replaceAll("√", "sqrt");
  if (t.split("|").length === 3) t = t.replace(/\|([^|]*)\|/, "abs($1)");
  return withoutCommas(t).replaceAll("^", "**");
}

function withoutCommas(text) {
  const grouped = /(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])/.exec(text);
  if (!grouped) return text.replace(/(?<![\d.])(\d+),(\d+)(?![.,\d])/g, "$1.$2");
  const bare = grouped[0].replaceAll(",", "");
  if (/^\.\d/.test(text.slice(grouped.index + grouped[0].length))) {
    return text.replaceAll(grouped[0], bare);
  }
  const decimal = grouped[0].replace(",", ".").replaceAll(",", "");
  throw new BadExpression(_("{text} can mean {bare} or {decimal}; write it without a comma",
    { text: quoted(grouped[0]), bare, decimal }));
}

// Put in the * that people leave out, and ask where it could mean two things.
function tokens(text, known) {
  const found = [...text.matchAll(TOKEN)].map(([, number, name, sign]) =>
    number ? ["number", number] : name ? ["name", name] : ["sign", sign]);
  const written = [];
  const opened = [];
  let start = 0; // of the operand that ends with the last token
  found.forEach(([kind, word], place) => {
    const before = place ? found[place - 1] : ["", ""];
    const ends = before[0] === "number" || before[1] === ")" || before[1] in known;
    const begins = word === "(" || kind === "name" || (kind === "number" && before[1] === ")");
    if (ends && begins) {
      const sign = start ? found[start - 1][1].replace("**", "^") : "";
      if (sign === "/" || sign === "^") {
        const left = found.slice(start, place).map((token) => token[1]).join("");
        throw new BadExpression(
          `'${sign}${left}${word}' can mean two things; write the * and brackets, as in `
          + `'${sign}(${left}*${word}${word === "(" ? "…)" : ""})'`);
      }
      written.push(["sign", "*"]);
    }
    if (word === "(") opened.push(before[0] === "name" && !(before[1] in known) ? start : place);
    else if (word === ")") start = opened.length ? opened.pop() : place;
    if (kind !== "sign") start = place;
    written.push([kind, word]);
  });
  return written;
}

export function evaluate(text, names = {}) {
  const known = Object.assign(Object.create(null), CONSTANTS, names);
  if ([...text].length > LONGEST) throw new BadExpression(_("this is too long for an answer"));
  let plain = tidy(text);
  const percent = plain.endsWith("%");
  if (percent) plain = plain.slice(0, -1).trim();
  if (!plain) throw new BadExpression(_("nothing was typed"));
  const list = tokens(plain, known);
  let at = 0;
  const peek = () => (at < list.length ? list[at][1] : "");
  const take = (...signs) => at < list.length && list[at][0] === "sign" && signs.includes(peek())
    ? list[at++][1] : "";

  // Names are looked up after all of it was read, as in Python: first what cannot be read at all.
  function sum() {
    let value = product();
    for (let sign = take("+", "-"); sign; sign = take("+", "-")) {
      const [left, right, s] = [value, product(), sign];
      value = () => (s === "+" ? left() + right() : left() - right());
    }
    return value;
  }
  function product() {
    let value = signed();
    for (let sign = take("*", "/", "%"); sign; sign = take("*", "/", "%")) {
      const [left, right, s] = [value, signed(), sign];
      value = () => {
        const [a, b] = [left(), right()];
        if (s === "%") {
          const all = Object.keys(FUNCTIONS).join(", ");
          throw new BadExpression(_("only numbers, names, + - * / ^ and {functions} here", { functions: all }));
        }
        if (s === "/" && b === 0) throw new RangeError();
        return s === "*" ? a * b : a / b;
      };
    }
    return value;
  }
  function signed() {
    const sign = take("+", "-");
    if (!sign) return power();
    const inner = signed();
    return () => (sign === "-" ? -inner() : inner());
  }
  function power() {
    const base = atom();
    if (!take("**")) return base;
    const exponent = signed();
    return () => {
      const [a, b] = [base(), exponent()];
      if (a < 0 && b !== Math.round(b)) {
        throw new BadExpression(_("a root of a negative number is not an answer here"));
      }
      return a ** b;
    };
  }
  function atom() {
    if (take("(")) {
      const value = sum();
      if (peek() === ",") throw comma();
      if (!take(")")) throw unreadable(text);
      return value;
    }
    const [kind, word] = list[at++] ?? ["", ""];
    if (kind === "number") return () => Number(word);
    if (kind !== "name") throw unreadable(text);
    if (word in known || !take("(")) {
      return () => {
        if (word in known) return known[word];
        if (word === "True" || word === "False") {
          throw new BadExpression(_("True and False are not numbers here"));
        }
        throw new BadExpression(unknown(word, Object.keys(names)));
      };
    }
    const inside = [];
    if (peek() !== ")") do inside.push(sum()); while (take(","));
    if (!take(")")) throw unreadable(text);
    return () => call(word, inside);
  }
  function call(word, inside) {
    const name = word.toLowerCase();
    if (!Object.hasOwn(FUNCTIONS, name)) throw new BadExpression(noFunction(word, known));
    if (inside.length !== 1) {
      throw new BadExpression(_("{name} takes one argument, got {n}", { name: word, n: inside.length }));
    }
    const value = FUNCTIONS[name](inside[0]());
    if (Number.isNaN(value) || (value === -Infinity)) throw unreadable(text);
    return value;
  }
  const comma = () => new BadExpression(
    "this comma is not understood; write numbers with a point, as 0.5");
  const whole = sum();
  if (peek() === ",") throw comma();
  if (at < list.length) throw unreadable(text);
  let value;
  try {
    value = whole();
  } catch (error) {
    if (error instanceof RangeError) value = NaN;
    else throw error;
  }
  if (percent) value /= 100;
  if (!Number.isFinite(value)) {
    throw new BadExpression(_("{text} has no finite value", { text: quoted(text.trim()) }));
  }
  return value;
}

function noFunction(word, known) {
  const names = Object.keys(known).join("|");
  const functions = Object.keys(FUNCTIONS);
  const found = new RegExp(`^(${names})(${functions.join("|")})$`, "u").exec(word);
  if (found) {
    return _("{name} is not a function here; for a product write {product}",
      { name: quoted(word), product: `${found[1]}*${found[2]}(…)` });
  }
  return _("{name} is not a function here; there are {functions}",
    { name: quoted(word), functions: functions.join(", ") });
}

function unknown(word, variables) {
  if (!variables.length) {
    return _("{name} is not a number; there are no variables here", { name: quoted(word) });
  }
  const parts = [...variables, ...Object.keys(CONSTANTS)]
    .sort((a, b) => b.length - a.length).join("|");
  if (new RegExp(`^(?:${parts}){2,}$`, "u").test(word)) {
    const product = word.match(new RegExp(parts, "gu")).join("*");
    return _("{name} is not a variable here; for a product write {product}",
      { name: quoted(word), product });
  }
  const power = new RegExp(`^(${parts})(\\d+)$`, "u").exec(word);
  if (power) {
    const [, one, digits] = power;
    return _("{name} is not a variable here; write {power} or {product}",
      { name: quoted(word), power: `${one}^${digits}`, product: `${digits}*${one}` });
  }
  return _("{name} is not a variable here; use {variables}",
    { name: quoted(word), variables: variables.join(", ") });
}

// [significant digits, half of the last digit] of a plain decimal number, or null.
export function rounding(text) {
  const found = /^[+-]?(\d*)(?:\.(\d*))?(\s*%)?$/.exec(tidy(text));
  if (!found || !(found[1] || found[2])) return null;
  const digits = found[1] + (found[2] ?? "");
  const significant = digits.replace(/^0+/, "") || digits.slice(-1);
  const unit = 10 ** -(found[2] ?? "").length / (found[3] ? 100 : 1);
  return [significant.length, unit / 2];
}
