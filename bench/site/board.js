"use strict";
// The whole table is in the page and readable without this script. The script keeps the lines of one page in the
// document and sorts and filters arrays, so that thousands of entries stay quick.
(() => {
  const byId = (id) => document.getElementById(id);
  const table = byId("board");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const form = byId("filters");
  const field = (name) => form.elements.namedItem(name);
  const keys = heads.map((head) => head.dataset.key);
  const numeric = heads.map((head) => head.classList.contains("n"));

  const lines = [...body.rows].map((row, order) => {
    const values = [...row.cells].map((cell, i) => {
      const text = cell.dataset.k ?? cell.textContent.trim();
      if (!numeric[i]) return text.toLowerCase();
      const number = parseFloat(text);
      return Number.isNaN(number) ? null : number;
    });
    const shown = (key) => row.cells[keys.indexOf(key)].textContent.trim();
    return {
      row, order, values,
      network: shown("network"), objective: shown("objective"), eps: shown("eps"), pruner: shown("pruner"), seed: shown("seed"),
      verifiers: row.dataset.v.split("|"),
      compression: values[keys.indexOf("compression")],
      words: `${shown("entry")} ${row.dataset.by} ${row.querySelector("a").getAttribute("href")}`.toLowerCase(),
    };
  });

  let sort = "", falling = true, page = 0, size = 50, found = lines;
  const collator = new Intl.Collator("en", { numeric: true });

  // Methods are told apart by their place in the taxonomy; a dense control has none, and stays beside any.
  const facets = [...form.querySelectorAll("[data-facet]")];
  const fits = (row) => "dense" in row.dataset || facets.every((list) => !list.value || row.getAttribute(`data-${list.dataset.facet}`) === list.value);
  const methods = [...document.querySelectorAll("tr.method")];
  const families = [...document.querySelectorAll(".panel, .grid")];

  const choose = () => {
    const wanted = ["network", "objective", "eps", "pruner", "seed"].map((name) => [name, field(name).value]).filter((w) => w[1]);
    const verifier = field("verifier").value;
    const from = parseFloat(field("from").value), to = parseFloat(field("to").value);
    const words = field("q").value.trim().toLowerCase();
    found = lines.filter((line) =>
      wanted.every(([name, value]) => line[name] === value) &&
      (!verifier || line.verifiers.includes(verifier)) && fits(line.row) &&
      !(line.compression < from * 0.999) && !(line.compression > to * 1.001) && (!words || line.words.includes(words)));
    if (sort) {
      const at = keys.indexOf(sort), sign = falling ? -1 : 1;
      found.sort((a, b) => {
        const x = a.values[at], y = b.values[at];
        if (x === null || y === null) return (x === null) - (y === null) || a.order - b.order;
        return sign * (numeric[at] ? x - y : collator.compare(x, y)) || a.order - b.order;
      });
    }
    for (const row of methods) row.hidden = !fits(row);
    for (const panel of families) {
      panel.hidden = !["network", "objective", "eps"].every((name) => !field(name).value || panel.dataset[name] === field(name).value);
    }
  };

  const draw = () => {
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.min(page, pages - 1);
    body.replaceChildren(...found.slice(page * size, (page + 1) * size).map((line) => line.row));
    for (const [i, head] of heads.entries()) {
      head.setAttribute("aria-sort", keys[i] === sort ? (falling ? "descending" : "ascending") : "none");
    }
    byId("status").textContent = found.length === lines.length ? `${lines.length} entries` : `${found.length} of ${lines.length} entries`;
    byId("pages").hidden = found.length <= 50;
    byId("page").textContent = `page ${page + 1} of ${pages}`;
    byId("back").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    byId("turn").textContent = falling ? "↓ falling" : "↑ rising";
    byId("turn").disabled = !sort;
    field("sort").value = sort;
  };

  const remember = () => {
    const state = new URLSearchParams();
    for (const element of form.elements) if (element.name && element.name !== "sort" && element.value) state.set(element.name, element.value);
    if (sort) state.set("sort", (falling ? "-" : "") + sort);
    const text = state.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  };

  const update = () => { page = 0; choose(); draw(); remember(); };

  const recall = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    // Not form.reset(): its event would forget the order again.
    for (const element of form.elements) if (element.name && element.name !== "sort") element.value = state.get(element.name) ?? "";
    const asked = state.get("sort") ?? "";
    falling = asked.startsWith("-") || !asked;
    sort = keys.includes(asked.replace(/^-/, "")) ? asked.replace(/^-/, "") : "";
    page = 0;
    choose();
    draw();
  };

  const sortBy = (key, way) => {
    falling = way ?? (sort === key ? !falling : numeric[keys.indexOf(key)]);
    sort = key;
    update();
  };

  for (const [i, head] of heads.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(keys[i]));
    head.append(button);
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  const changed = (event) => {
    if (event.target.name === "sort" && event.target.value !== sort) {
      sort = event.target.value;
      falling = sort === "" || numeric[keys.indexOf(sort)];
    }
    update();
  };
  // Typing is followed at once; some tools that operate a list for a person tell of the finished change alone.
  form.addEventListener("input", changed);
  form.addEventListener("change", changed);
  form.addEventListener("reset", () => setTimeout(() => { sort = ""; falling = true; update(); }));
  byId("turn").addEventListener("click", () => { falling = !falling; update(); });
  byId("back").addEventListener("click", () => { page -= 1; draw(); });
  byId("next").addEventListener("click", () => { page += 1; draw(); });
  byId("size").addEventListener("change", (event) => { size = Number(event.target.value); page = 0; draw(); });
  byId("copy").addEventListener("click", async () => {
    const head = heads.map((cell) => cell.textContent.trim()).join("\t");
    const text = [head, ...found.map((line) => [...line.row.cells].map((cell) => cell.textContent.replace(/\s+/g, " ").trim()).join("\t"))].join("\n");
    const button = byId("copy");
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = `Copied ${found.length} lines`;
    } catch {
      button.textContent = "The browser refused";
    }
    setTimeout(() => (button.textContent = "Copy these lines"), 2000);
  });
  addEventListener("hashchange", recall);
  form.hidden = false;
  byId("copy").hidden = false;
  if (location.hash.includes("=")) recall();
  else { choose(); draw(); }
})();
