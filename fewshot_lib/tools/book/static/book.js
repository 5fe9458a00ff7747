// What is wider than the page scrolls in its own box, and can be reached from the keyboard.
"use strict";
function focusable() {
  for (const formula of document.querySelectorAll("mjx-container:not([display])")) {
    const wide = formula.firstElementChild?.getBoundingClientRect().width;
    const room = formula.closest("p, li, td, th, dd, div").clientWidth;
    formula.classList.toggle("fewshot-wide", wide > room);
  }
  const boxes = "pre, .output, .fewshot-wide, .pst-scrollable-table-container, mjx-container";
  for (const box of document.querySelectorAll(boxes)) {
    const wide = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    if (wide) box.tabIndex = 0;
  }
}
addEventListener("load", () => {
  document.documentElement.classList.add("fewshot-read");
  focusable();
  for (const later of document.querySelectorAll("script[type='text/later']")) {
    const script = document.createElement("script");
    script.addEventListener("load", () => MathJax.startup.promise.then(focusable));
    script.src = later.src;
    later.replaceWith(script);
  }
});
addEventListener("resize", focusable);
// The theme's arrows in the list of pages have no name of their own.
for (const arrow of document.querySelectorAll(".bd-sidebar summary")) {
  const link = arrow.parentElement.previousElementSibling;
  if (link) arrow.setAttribute("aria-label", link.textContent.trim());
}
for (const button of document.querySelectorAll(".fewshot-print")) {
  button.addEventListener("click", () => print());
}
// A term or a paper says what it is when it is pointed at or reached by the keyboard; Escape closes
// it, and the pointer may rest on it.
const tip = document.createElement("div");
Object.assign(tip, { className: "fewshot-tip", id: "fewshot-tip", hidden: true });
tip.setAttribute("role", "tooltip");
document.body.append(tip);
let leaving;
let told = null;
function tell(link) {
  clearTimeout(leaving);
  told?.removeAttribute("aria-describedby");
  told = link;
  tip.hidden = link === null;
  if (link === null) return;
  tip.textContent = link.dataset.says;
  link.setAttribute("aria-describedby", tip.id);
  const { left, top, bottom } = link.getClientRects()[0];
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const below = bottom + 4 + tip.offsetHeight < innerHeight;
  tip.style.left = `${scrollX + Math.max(8, Math.min(left, room))}px`;
  tip.style.top = `${scrollY + (below ? bottom + 4 : top - tip.offsetHeight - 4)}px`;
}
function leave() {
  clearTimeout(leaving);
  leaving = setTimeout(tell, 200, null);
}
for (const link of document.querySelectorAll("a.fewshot-term[title]")) {
  link.dataset.says = link.title;
  link.removeAttribute("title");
  link.addEventListener("pointerenter", () => tell(link));
  link.addEventListener("focus", () => tell(link));
  link.addEventListener("pointerleave", leave);
  link.addEventListener("blur", leave);
}
tip.addEventListener("pointerenter", () => clearTimeout(leaving));
tip.addEventListener("pointerleave", leave);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") tell(null);
});
// A line may break on either side of a formula; not between it and a mark that a line must not begin
// or end with.
for (const formula of document.querySelectorAll("span.math")) {
  const [before, after] = [formula.previousSibling, formula.nextSibling];
  const opens = before instanceof Text && /[（《“(\[‘]$/.test(before.data);
  const closes = after instanceof Text && /^[，。；：、？！）》”.,;:?!)\]’'-]/.test(after.data);
  if (!opens && !closes) continue;
  const kept = document.createElement("span");
  kept.style.whiteSpace = "nowrap";
  formula.before(kept);
  if (opens) kept.append(before.splitText(before.length - 1));
  kept.append(formula);
  if (closes) {
    after.splitText(1);
    kept.append(after);
  }
}
// Where one or two lines of an output are too long they go on in the next line, as in JupyterLab;
// more of them are a table, whose rows stay whole and are scrolled.
for (const said of document.querySelectorAll(".cell_output pre")) {
  const lengths = said.textContent.split("\n").map((line) => line.length);
  const room = (said.clientWidth / said.scrollWidth) * Math.max(...lengths);
  const long = lengths.filter((length) => length > room).length;
  if (long && long <= 2) said.classList.add("fewshot-sentence");
}
if (location.protocol === "file:" && /search\.html$/.test(location.pathname)) {
  const note = document.createElement("p");
  const _ = (text) => (window.fewshotWords ?? {})[text] ?? text;
  note.textContent = _("The search needs a server, because a browser lets no page on disk read its"
    + " neighbours. Run “python -m http.server” in the folder of these pages.");
  document.querySelector(".bd-search-container h1").after(note);
}
