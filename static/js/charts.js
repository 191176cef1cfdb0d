// Live curves of a stage (uPlot), one shared cursor. Only what is new is fetched, and only while
// the stage runs. Text is written as text; colors come from site.css.
(() => {
  const POLL = 2000;
  const islands = new Set();

  const number = (value) => {
    if (value == null) return "–";
    const size = Math.abs(value);
    if (size > 0 && size < 0.01) return value.toExponential(1).replace(".0e", "e").replaceAll("-", "−");
    const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
    return value.toFixed(digits).replace("-", "−");
  };

  // All labels of an axis have the decimals that its step needs.
  const tickText = (increment) => (value) => {
    if (value === 0 || increment >= 0.0005) {
      const digits = Math.max(0, Math.ceil(-Math.log10(increment) - 1e-9));
      const steps = Math.abs(increment * 10 ** digits - Math.round(increment * 10 ** digits)) > 1e-6;
      return value.toFixed(digits + (steps ? 1 : 0)).replace("-", "−");
    }
    return number(value);
  };

  // A custom property holds `light-dark(…)` unresolved; the color of an element is resolved.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const color = (token) => {
    probe.style.color = `var(--${token})`;
    return getComputedStyle(probe).color;
  };
  const dashOf = (text) => text.split(" ").filter(Boolean).map(Number);

  class Curve {
    constructor(figure) {
      this.figure = figure;
      this.spec = JSON.parse(figure.dataset.curve);
      this.plot = figure.querySelector(".plot");
      this.legend = figure.querySelector(".legend");
      this.at = figure.querySelector(".at");
      this.plot.addEventListener("keydown", (event) => this.move(event));
      this.plot.addEventListener("blur", () => this.chart?.setCursor({ left: -10, top: -10 }));
      this.details = figure.querySelector("details");
      this.table = figure.querySelector("table");
      this.details.addEventListener("toggle", () => this.fillTable());
      this.rows = [];
    }

    // Only metrics that this run has: a run without a test-RM draws one line, not an empty one.
    get lines() {
      return this.spec.lines.filter(([metric]) => this.rows.some((row) => row[metric] != null));
    }

    get data() {
      return [
        this.rows.map((row) => row.step),
        ...this.lines.map(([metric]) => this.rows.map((row) => row[metric] ?? null)),
      ];
    }

    // The two reward models learn one after the other; their curves are compared update by update.
    overlaid(rows) {
      const metrics = this.spec.lines.map(([metric]) => metric);
      const columns = metrics.map((metric) => rows.map((row) => row[metric]).filter((v) => v != null));
      const longest = Math.max(0, ...columns.map((column) => column.length));
      return Array.from({ length: longest }, (_, i) =>
        Object.fromEntries([["step", i + 1], ...metrics.map((metric, m) => [metric, columns[m][i]])]),
      );
    }

    draw(rows) {
      const before = this.lines.length;
      this.rows = this.spec.own ? this.overlaid(rows) : rows;
      if (!this.rows.length) return;
      if (this.chart && this.lines.length === before) this.chart.setData(this.data);
      else this.rebuild();
      this.show(null);
      if (this.details.open) this.fillTable();
    }

    rebuild() {
      this.chart?.destroy();
      const ink = color("ink-2");
      const grid = { stroke: color("line"), width: 1 };
      const axis = { stroke: ink, grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      this.legend.replaceChildren(
        ...this.lines.map(([, name, token, dash]) => {
          const item = document.createElement("li");
          item.className = `tone-${token}`;
          const key = document.createElementNS("http://www.w3.org/2000/svg", "svg");
          key.setAttribute("width", "22");
          key.setAttribute("height", "10");
          key.setAttribute("aria-hidden", "true");
          const line = document.createElementNS(key.namespaceURI, "line");
          for (const [at, to] of Object.entries({ x1: 0, x2: 22, y1: 5, y2: 5 })) line.setAttribute(at, to);
          line.setAttribute("class", "stroke");
          if (dash) line.setAttribute("stroke-dasharray", dash);
          key.append(line);
          const value = document.createElement("b");
          item.append(key, name, value);
          return item;
        }),
      );
      this.chart = new uPlot(
        {
          width: this.plot.clientWidth,
          height: 180,
          padding: [8, 8, 0, 0],
          legend: { show: false },
          cursor: { sync: { key: "round" }, points: { size: 7 }, drag: { x: true, y: false } },
          scales: { x: { time: false } },
          axes: [
            { ...axis, size: 28, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] },
            { ...axis, size: 48, values: (_, ticks, __, ___, increment) => ticks.map(tickText(increment)) },
          ],
          series: [
            {},
            ...this.lines.map(([, label, token, dash]) => ({
              label,
              stroke: color(token),
              width: 2,
              dash: dashOf(dash),
              spanGaps: true,
              points: { show: this.rows.length < 3 },
            })),
          ],
          hooks: { setCursor: [(chart) => this.show(chart.cursor.idx)] },
        },
        this.data,
        this.plot,
      );
    }

    // The arrow keys move the cursor of all charts from step to step; Home and End go to the ends.
    move(event) {
      if (!this.chart || !this.rows.length) return;
      const last = this.rows.length - 1;
      const at = this.chart.cursor.idx;
      const to = { ArrowLeft: (at ?? last + 1) - 1, ArrowRight: (at ?? -1) + 1, Home: 0, End: last, Escape: null }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      if (to === null) return this.chart.setCursor({ left: -10, top: -10 });
      const step = this.rows[Math.min(last, Math.max(0, to))].step;
      this.chart.setCursor({ left: this.chart.valToPos(step, "x"), top: 10 });
      const said = this.lines.map(([metric, name]) => `${name} ${number(this.rows[Math.min(last, Math.max(0, to))][metric])}`);
      this.plot.setAttribute("aria-valuetext", `step ${step}: ${said.join(", ")}`);
      this.plot.setAttribute("aria-valuenow", step);
    }

    show(index) {
      const step = this.rows[index ?? this.rows.length - 1]?.step;
      this.at.textContent = step == null ? "" : `step ${step}`;
      const items = this.legend.children;
      this.lines.forEach(([metric], i) => {
        let value = index == null ? null : this.rows[index]?.[metric];
        if (index == null) value = this.rows.findLast((row) => row[metric] != null)?.[metric];
        if (items[i]) items[i].lastChild.textContent = number(value);
      });
    }

    fillTable() {
      if (!this.details.open) return;
      const cell = (tag, text, numeric) => {
        const made = document.createElement(tag);
        made.textContent = text;
        if (numeric) made.className = "number";
        return made;
      };
      const head = document.createElement("tr");
      head.append(cell("th", "step", true), ...this.lines.map(([, name]) => cell("th", name, true)));
      const body = this.rows.map((row) => {
        const line = document.createElement("tr");
        line.append(
          cell("td", row.step, true),
          ...this.lines.map(([metric]) => cell("td", number(row[metric]), true)),
        );
        return line;
      });
      const top = document.createElement("thead");
      top.append(head);
      const rest = document.createElement("tbody");
      rest.append(...body);
      this.table.replaceChildren(top, rest);
    }

    resize() {
      const width = this.plot.clientWidth;
      if (this.chart && width && width !== this.chart.width) this.chart.setSize({ width, height: 180 });
    }
  }

  class Island {
    constructor(root) {
      this.root = root;
      this.epoch = this.after = -1;
      this.rows = [];
      this.curves = [...root.querySelectorAll("[data-curve]")].map((figure) => new Curve(figure));
      this.sizes = new ResizeObserver(() => this.curves.forEach((curve) => curve.resize()));
      this.sizes.observe(root);
      this.fetch();
    }

    async fetch() {
      if (!this.root.isConnected) return this.stop();
      let wait = POLL;
      if (!document.hidden) {
        try {
          const url = new URL(this.root.dataset.curves, location);
          url.searchParams.set("epoch", this.epoch);
          url.searchParams.set("after", this.after);
          const answer = await fetch(url, { headers: { Accept: "application/json" } });
          if (!answer.ok) throw new Error(String(answer.status));
          const news = await answer.json();
          if (news.reset) this.rows = [];
          this.epoch = news.epoch;
          this.after = news.last;
          this.rows.push(...news.rows);
          if (news.rows.length || news.reset) this.curves.forEach((curve) => curve.draw(this.rows));
          if (!news.running) return;
        } catch {
          wait = 5 * POLL; // the server restarts, or the network is away: ask again, less often
        }
      }
      this.timer = setTimeout(() => this.fetch(), wait);
    }

    redraw() {
      for (const curve of this.curves) if (curve.rows.length) { curve.rebuild(); curve.show(null); }
    }

    stop() {
      clearTimeout(this.timer);
      this.sizes.disconnect();
      islands.delete(this);
    }
  }

  const find = () => {
    for (const island of islands) if (!island.root.isConnected) island.stop();
    for (const root of document.querySelectorAll("[data-curves]"))
      if (!root.dataset.started) {
        root.dataset.started = "yes";
        islands.add(new Island(root));
      }
  };
  const redraw = () => islands.forEach((island) => island.redraw());
  document.addEventListener("gc:theme", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("htmx:after:swap", find);
  find();
})();
