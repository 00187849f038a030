// Draws each plot in the colours of the page, when it is first seen; again when the page turns dark or light.
"use strict";

const isDark = matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function themed(layout) {
  const result = structuredClone(layout);
  Object.assign(result, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true });
  result.font = { ...result.font, color: colour("--text") };
  for (const name of Object.keys(result).filter((key) => /^[xy]axis\d*$/.test(key))) {
    Object.assign(result[name], { gridcolor: colour("--line"), zerolinecolor: colour("--line") });
  }
  return result;
}

function draw(plot) {
  const figure = JSON.parse(plot.querySelector("script").textContent);
  const target = plot.querySelector("div");
  Plotly.react(target, figure.data, themed(figure.layout), { responsive: true, displayModeBar: false });
  plot.dataset.drawn = "yes";
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting && !one.target.dataset.drawn)) {
    draw(entry.target);
  }
}, { rootMargin: "400px" });

document.querySelectorAll(".plot").forEach((plot) => seen.observe(plot));
isDark.addEventListener("change", () => document.querySelectorAll(".plot[data-drawn]").forEach(draw));
addEventListener("beforeprint", () => document.querySelectorAll(".plot:not([data-drawn])").forEach(draw));
