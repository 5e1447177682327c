// ---- sweep: one row with every combination of the swept settings, laid out by two of them ----------------------

function showSweep({ axes, examples }) {
  const columns = axes.at(-1);
  const lines = axes.at(-2) ?? { name: "", values: [""] };
  const others = axes.slice(0, -2);
  const asked = (chosen) => others.reduce((place, axis) => place * axis.values.length + Number(byId(`sweep-${axis.name}`).value), 0)
    * lines.values.length * columns.values.length + chosen;

  function cell(row) {
    if (row === null) return element("td", {}, element("div", { className: "none", text: "not made" }));
    return element("td", {}, media(row, {}),
      element("button", { type: "button", onclick: () => openDetail(row), "aria-haspopup": "dialog", "aria-label": `Details: ${label(row)}` }, facts(row)));
  }

  function draw() {
    const example = examples[byId("sweep-row").value];
    const any = example.find((row) => row !== null);
    byId("sweep-grid").querySelectorAll("video").forEach((node) => watcher.unobserve(node));
    byId("sweep-asked").replaceChildren(...styles(any).slice(0, 4).map(reference), element("p", { text: prompt(any) }));
    const head = element("tr", {}, element("td", {}), ...columns.values.map((value) => element("th", { scope: "col", text: `${columns.name} ${value}` })));
    const body = lines.values.map((value, line) => element("tr", {},
      element("th", { scope: "row", text: lines.name && `${lines.name} ${value}` }),
      ...columns.values.map((_, column) => cell(example[asked(line * columns.values.length + column)]))));
    byId("sweep-grid").replaceChildren(element("table", { className: "sweep" }, element("thead", {}, head), element("tbody", {}, ...body)));
  }

  fill("sweep-row", examples.map((example, place) => {
    const any = example.find((row) => row !== null);
    return [place, `${rows.id[any]}${rows.sample[any] ? `, sample ${rows.sample[any]}` : ""}: ${prompt(any)}`];
  }));
  for (const axis of others) {
    byId("sweep-choice").append(element("label", { text: `${axis.name} ` }, element("select", { id: `sweep-${axis.name}` })));
    fill(`sweep-${axis.name}`, axis.values.map((value, place) => [place, value]));
  }
  byId("sweep-choice").addEventListener("input", draw);
  byId("sweep-choice").addEventListener("submit", (event) => event.preventDefault());
  draw();
}

if (data.sweep) showSweep(data.sweep);
