"use strict";
// Sorts and filters the table of cells. Without it the page is whole, in the order of the matrix.
(() => {
  const table = document.getElementById("cells");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const said = document.getElementById("said");
  const words = document.getElementById("words");
  const choices = [...document.querySelectorAll("[data-column]")];
  const front = document.getElementById("front");

  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1; // what has no figure comes last
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b));
  };
  const sort = (column, descending) => {
    const sign = descending ? -1 : 1;
    const sorted = rows.map((row, place) => [key(row, column), place, row]).sort(([a, i], [b, j]) => {
      if (a === null || b === null) return compare(a, b) || i - j;
      return sign * compare(a, b) || i - j;
    });
    body.append(...sorted.map(([, , row]) => row));
  };
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = head.querySelector("button");
    button?.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(column, descending);
      said.textContent = `Sorted by ${button.textContent.trim()}, ${descending ? "most first" : "least first"}`;
    });
  }
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits =
        wanted.every((word) => text.includes(word)) &&
        choices.every((box) => !box.value || row.cells[Number(box.dataset.column)].textContent.trim() === box.value) &&
        (!front.checked || row.dataset.front === "yes");
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    said.textContent = `${shown} of ${rows.length} cells shown`;
  };
  words.addEventListener("input", filter);
  front.addEventListener("change", filter);
  for (const box of choices) box.addEventListener("change", filter);
  document.getElementById("filter").hidden = false;
})();
