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
  focusable();
  window.MathJax?.startup?.promise?.then(focusable);
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
// A line may break on either side of a formula; not before or after a full-width mark that it must
// not begin or end with.
for (const formula of document.querySelectorAll("span.math")) {
  const [before, after] = [formula.previousSibling, formula.nextSibling];
  const opens = before instanceof Text && /[（《“]$/.test(before.data);
  const closes = after instanceof Text && /^[，。；：、？！）》”]/.test(after.data);
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
if (location.protocol === "file:" && /search\.html$/.test(location.pathname)) {
  const note = document.createElement("p");
  const _ = (text) => (window.fewshotWords ?? {})[text] ?? text;
  note.textContent = _("The search needs a server, because a browser lets no page on disk read its"
    + " neighbours. Run “python -m http.server” in the folder of these pages.");
  document.querySelector(".bd-search-container h1").after(note);
}
