"""How the page looks, and the little that happens in the browser."""

from __future__ import annotations

from typing import Any

CSS = """
.gradio-container { max-width: 1320px !important; margin: 0 auto !important; }
#heading h1 { margin-bottom: 0; }
#heading p { color: var(--body-text-color-subdued); margin-top: 2px; }
#about p, #code p { color: var(--body-text-color-subdued); font-size: var(--text-sm); }
#title h3 { margin: 6px 0; }
.words { min-height: 0; }
.plot { padding: 0 !important; background: white; }
#compare { flex: 0 0 auto; width: auto; }
.examples .grid-wrap {
  overflow: hidden; max-height: none; min-height: 0; padding: 28px 4px 4px;
}
.examples .grid-container {
  grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 4px; padding: 0;
}
.examples .thumbnail-item { min-width: 0; width: 100%; }
footer { display: none !important; }
"""

CLICKS = """
() => {
  const choose = (number) => {
    const field = document.querySelector("#point input");
    const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
    set.call(field, String(number));
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  // Plotly looks at its width again when the window changes, not when its column does.
  const narrower = new ResizeObserver(() => window.dispatchEvent(new Event("resize")));
  const listen = () => {
    for (const plot of document.querySelectorAll(".js-plotly-plot")) {
      if (!plot.on || plot.dataset.listens) continue;
      plot.dataset.listens = "yes";
      narrower.observe(plot.closest(".plot") || plot.parentElement);
      plot.on("plotly_click", (event) => {
        const point = event.points.find((each) => each.customdata !== undefined);
        if (point) choose(Math.round(point.customdata[0]));
      });
    }
  };
  new MutationObserver(listen).observe(document.body, { childList: true, subtree: true });
  listen();
}
"""
"""Clicking a point writes its number into the field that a keyboard reaches, too; and figures
follow the width of their columns."""

DOWNLOAD = """
() => setTimeout(() => {
  const file = document.querySelector("#file");
  (file.querySelector("a") || file).click();
}, 200)
"""
"""Once the file is there, the browser takes it."""


def theme() -> Any:
    """Colours and type; every font is one that the machine has, so none is fetched."""
    import gradio as gr

    return gr.themes.Default(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
