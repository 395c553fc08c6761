"""The page's own script: draws the figures, moves the slider, fits them to paper. It makes no markup from data."""

from __future__ import annotations

SCRIPT = """
(function () {
  "use strict";
  var PRINT_WIDTH = 660, STEP_MS = 220;
  var coarse = window.matchMedia("(pointer: coarse)").matches;
  var options = {
    responsive: true, displaylogo: false, scrollZoom: false, showTips: false,
    displayModeBar: coarse ? false : "hover",
    // Named one by one: by default there is one that would send the figure to somebody's server.
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]
  };
  var plots = [];

  function slide(plot, spec, slider, output, index) {
    var all = spec.data[spec.slider.from];
    var first = spec.slider.starts[index], end = spec.slider.starts[index + 1];
    var update = {name: [spec.slider.labels[index]]};
    ["x", "y", "customdata"].forEach(function (key) { update[key] = [all[key].slice(first, end)]; });
    Plotly.restyle(plot, update, [spec.slider.to]);
    slider.value = String(index);
    slider.setAttribute("aria-valuetext", spec.slider.labels[index]);
    output.textContent = spec.slider.labels[index] + ": " + (end - first) + (end - first === 1 ? " point" : " points");
  }

  function connectSlider(figure, plot, spec) {
    var slider = figure.querySelector("input[type=range]");
    var output = figure.querySelector("output");
    var play = figure.querySelector("button.play");
    var last = spec.slider.labels.length - 1, timer = null;
    function show(index) { slide(plot, spec, slider, output, index); }
    function stop() { window.clearInterval(timer); timer = null; play.textContent = "Play"; }
    slider.addEventListener("input", function () { stop(); show(Number(slider.value)); });
    play.addEventListener("click", function () {
      if (timer !== null) { stop(); return; }
      var next = Number(slider.value) >= last ? 0 : Number(slider.value) + 1;
      play.textContent = "Stop";
      show(next);
      timer = window.setInterval(function () {
        next += 1;
        if (next > last) { stop(); return; }
        show(next);
      }, STEP_MS);
    });
    show(last);
  }

  function connectViews(figure, plot, spec) {
    var buttons = Array.prototype.slice.call(figure.querySelectorAll("button[data-view]"));
    buttons.forEach(function (button) {
      button.addEventListener("click", function () {
        Plotly.relayout(plot, spec.views[button.dataset.view]);
        buttons.forEach(function (other) { other.setAttribute("aria-pressed", String(other === button)); });
      });
    });
  }

  document.querySelectorAll("figure[data-figure]").forEach(function (figure) {
    var name = figure.dataset.figure;
    var spec = JSON.parse(document.getElementById(name + "-data").textContent);
    var plot = figure.querySelector(".plot");
    if (coarse) { spec.layout.dragmode = false; }
    Plotly.newPlot(plot, spec.data, spec.layout, options);
    plots.push(plot);
    if (spec.slider) { connectSlider(figure, plot, spec); }
    connectViews(figure, plot, spec);
  });

  var printing = false;
  function fit(print) {
    if (print === printing) { return; }
    printing = print;
    document.querySelectorAll("details.brief").forEach(function (box) { box.open = print; });
    plots.forEach(function (plot) {
      Plotly.relayout(plot, print ? {width: PRINT_WIDTH, autosize: false} : {width: null, autosize: true});
    });
  }
  window.addEventListener("beforeprint", function () { fit(true); });
  window.addEventListener("afterprint", function () { fit(false); });
  window.matchMedia("print").addEventListener("change", function (event) { fit(event.matches); });
})();
"""
