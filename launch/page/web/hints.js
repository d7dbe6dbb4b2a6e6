// Explanations in plain words: `data-hint` is a tooltip under the mouse, and can be focused, tapped and read aloud.

const bubble = document.getElementById("hint");

function open(element) {
  bubble.textContent = element.dataset.hint;
  bubble.hidden = false;
  const at = element.getBoundingClientRect();
  const { width, height } = bubble.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - width - 8));
  const above = at.top - height - 6;
  bubble.style.left = `${left}px`;
  bubble.style.top = `${above > 0 ? above : at.bottom + 6}px`;
}

const close = () => { bubble.hidden = true; };

export function explain(root) {
  for (const element of root.querySelectorAll("[data-hint]")) {
    element.tabIndex = 0;
    element.title = element.dataset.hint;
    element.setAttribute("aria-description", element.dataset.hint);
    element.addEventListener("focus", () => open(element));
    element.addEventListener("click", () => open(element));
    element.addEventListener("blur", close);
  }
}

addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
addEventListener("scroll", close, true);
