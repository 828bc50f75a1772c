"use strict";
// Draws the charts of every run from the page's own records, and moves a mark along each path with its slider.
(() => {
  const runs = JSON.parse(document.getElementById("records").textContent);
  const byId = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  const number = (v) => (v === null || v === undefined ? "–" : v === 0 ? "0" : Math.abs(v) >= 1e-4 && Math.abs(v) < 1e5 ? v.toPrecision(4) : v.toExponential(2));
  const percent = (v) => (v === null || v === undefined ? "–" : (100 * v).toFixed(2) + " %");
  const quantities = [["loss", number], ["nll", number], ["error", percent]];

  const layout = (yTitle, xTitle, more) => {
    const axis = { gridcolor: css("--rule"), zerolinecolor: css("--rule"), linecolor: css("--rule"), ticks: "outside", tickcolor: css("--rule") };
    return Object.assign({
      margin: { l: 58, r: 12, t: 52, b: 44 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), size: 12, family: "system-ui, sans-serif" },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 }, bgcolor: "rgba(0,0,0,0)" },
      hovermode: "x unified", hoverlabel: { bgcolor: css("--card"), font: { color: css("--ink") } },
      xaxis: Object.assign({ title: { text: xTitle } }, axis),
      yaxis: Object.assign({ title: { text: yTitle }, rangemode: "tozero" }, axis),
    }, more || {});
  };
  const rule = (t) => [{ type: "line", x0: t, x1: t, y0: 0, y1: 1, yref: "paper", line: { color: css("--soft"), width: 1.5 } }];

  // Plain colours of the figures are too dark on dark paper.
  const shade = (path) => css(path.dash === "dash" ? "--line" : "--curve") || path.color;
  const series = (path, quantity, factor) => ["train", "test"].filter((split) => path.points[0][split] && path.points[0][split][quantity] !== undefined).map((split) => ({
    x: path.points.map((p) => p.t),
    y: path.points.map((p) => (p[split][quantity] === null ? null : factor * p[split][quantity])),
    name: path.name + ", " + split, mode: "lines",
    line: { color: shade(path), width: split === "train" ? 2.8 : 1.2, dash: path.dash === "dash" ? "dash" : "solid" },
  }));

  const nearest = (path, t) => path.points.reduce((best, p) => (Math.abs(p.t - t) < Math.abs(best.t - t) ? p : best));

  const readout = (run, t) => {
    const splits = ["train", "test"].filter((split) => run.paths[0].points[0][split]);
    const shown = quantities.filter(([q]) => run.paths[0].points[0].train[q] !== undefined);
    const head = "<thead><tr><th></th>" + splits.map((s) => shown.map(([q]) => "<th>" + s + " " + q + "</th>").join("")).join("") + "</tr></thead>";
    const rows = run.paths.map((path) => {
      const p = nearest(path, t);
      const key = '<span class="key" style="border-color:' + shade(path) + (path.dash === "dash" ? ";border-top-style:dashed" : "") + '"></span>';
      return "<tr><td>" + key + path.name + "</td>" + splits.map((s) => shown.map(([q, text]) => "<td>" + text(p[s] && p[s][q]) + "</td>").join("")).join("") + "</tr>";
    });
    return head + "<tbody>" + rows.join("") + "</tbody>";
  };

  // Where the curve is at t, between the samples of the plane.
  const between = (ts, places, t) => {
    let i = ts.findIndex((v) => v >= t);
    if (i <= 0) return places[Math.max(i, 0)];
    const u = (t - ts[i - 1]) / (ts[i] - ts[i - 1]);
    return places[i].map((v, k) => (v === null || places[i - 1][k] === null ? null : places[i - 1][k] * (1 - u) + v * u));
  };

  // The drawing is four times as large inside as its places say.
  const DRAWING_SCALE = 4;
  const marks = (figure, n) => {
    const svg = figure.querySelector("svg");
    return Array.from({ length: n }, () => {
      const circle = document.createElementNS(svg.namespaceURI, "circle");
      for (const [name, value] of [["r", 22], ["fill", "#d55e00"], ["stroke", "#ffffff"], ["stroke-width", 7]]) circle.setAttribute(name, value);
      svg.appendChild(circle);
      return circle;
    });
  };

  const draw = (run, idx) => {
    const lossTitle = run.paths.some((p) => p.weight_decay > 0) ? "loss, with L2 term" : "loss";
    const charts = [];
    if (run.paths.length) {
      const loss = run.paths.flatMap((p) => series(p, "loss", 1));
      Plotly.react(byId("loss-" + idx), loss, layout(lossTitle, "t", {}), options);
      charts.push(byId("loss-" + idx));
      const error = run.paths.flatMap((p) => series(p, "error", 100));
      if (error.length) {
        Plotly.react(byId("error-" + idx), error, layout("error (%)", "t", {}), options);
        charts.push(byId("error-" + idx));
      } else {
        byId("error-" + idx).remove();
      }
    }
    if (run.training.length) {
      const lines = [["train_nll", "training nll", 2.2], ["test_nll", "test nll", 1.2]].map(([key, name, width]) => {
        const rows = run.training.filter((r) => typeof r[key] === "number");
        return { x: rows.map((r) => r.epoch), y: rows.map((r) => r[key]), name, mode: rows.length > 1 ? "lines" : "markers", line: { color: css("--curve"), width } };
      }).filter((line) => line.x.length);
      const axes = layout("nll", "epoch", {});
      axes.yaxis.type = "log";
      axes.yaxis.rangemode = "normal";
      Plotly.react(byId("training-" + idx), lines, axes, options);
    }
    let surface = null;
    if (run.plane && byId("surface-" + idx)) {
      surface = byId("surface-" + idx);
      const plot = run.plane.surface;
      const scene = plot.layout.scene;
      for (const axis of [scene.xaxis, scene.yaxis, scene.zaxis]) Object.assign(axis, { gridcolor: css("--rule"), color: css("--ink") });
      const data = plot.data.slice(0, run.plane.ts.length ? 3 : 2);
      if (run.plane.ts.length) data.push({ type: "scatter3d", mode: "markers", x: [null], y: [null], z: [null], marker: { color: "#d55e00", size: 7, line: { color: "#ffffff", width: 2 } }, hoverinfo: "skip" });
      Plotly.react(surface, data, Object.assign({}, plot.layout, { font: { color: css("--ink") } }), options);
    }
    return { charts, surface };
  };

  const start = (run, idx) => {
    let drawn = draw(run, idx);
    const slider = byId("t-" + idx);
    const figure = byId("plane-" + idx);
    const circles = figure && run.plane && run.plane.ts.length ? marks(figure, run.plane.places.length) : [];
    const show = () => {
      if (!slider) return;
      const t = Number(slider.value) / Number(slider.max);
      byId("t-value-" + idx).textContent = "t = " + t.toFixed(3);
      byId("readout-" + idx).innerHTML = readout(run, t);
      for (const chart of drawn.charts) Plotly.relayout(chart, { shapes: rule(t) });
      circles.forEach((circle, panel) => {
        const [x, y] = between(run.plane.ts, run.plane.places[panel], t);
        circle.setAttribute("cx", DRAWING_SCALE * x);
        circle.setAttribute("cy", DRAWING_SCALE * y);
      });
      if (drawn.surface && run.plane.ts.length) {
        const curve = run.plane.surface.data[1];
        const [x, y, z] = between(run.plane.ts, curve.x.map((v, i) => [v, curve.y[i], curve.z[i]]), t);
        Plotly.restyle(drawn.surface, { x: [[x]], y: [[y]], z: [[z]] }, [3]);
      }
    };
    if (slider) slider.addEventListener("input", () => requestAnimationFrame(show));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawn = draw(run, idx); show(); });
    show();
  };

  runs.forEach(start);
  addEventListener("beforeprint", () => document.querySelectorAll(".chart").forEach((chart) => chart.data && Plotly.Plots.resize(chart)));
})();
