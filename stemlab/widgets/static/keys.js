// Keys pressed on the buttons, lists and sliders of a panel must not be shortcuts of the notebook: at
// X, JupyterLab would cut the cell. It ignores keys in an element that itself has this attribute.

const KEEPS_KEYS = "data-lm-suppress-shortcuts";
// Class of a panel whose button was pressed to load a mixer, which then takes the focus.
const AWAITS_MIXER = "stemlab-awaits-mixer";

const keep = (event) => {
  const { target } = event;
  // JupyterLab ignores keys in text fields anyway. Saving the notebook stays a shortcut.
  if (!target.closest?.(".stemlab-panel") || target.matches(":read-write")) return;
  const saves = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
  target.toggleAttribute(KEEPS_KEYS, !saves);
};
// Otherwise a click beside the controls, or on a disabled one, moves the focus to the cell.
const claim = ({ target }) => {
  const panel = target.closest?.(".stemlab-panel");
  if (panel) panel.tabIndex = -1;
};
const press = ({ target }) => {
  const button = target.closest?.(".stemlab-loads-mixer");
  button?.closest(".stemlab-panel")?.classList.add(AWAITS_MIXER);
};
const leave = ({ target }) => {
  if (target.closest(".stemlab-loads-mixer, .stemlab-mixer")) return;
  for (const panel of document.querySelectorAll(`.${AWAITS_MIXER}`)) panel.classList.remove(AWAITS_MIXER);
};

const LISTENERS = { keydown: keep, pointerdown: claim, click: press, focusin: leave };

export default {
  initialize() {
    // Before JupyterLab, which listens to the document.
    for (const [name, react] of Object.entries(LISTENERS)) window.addEventListener(name, react, true);
    return () => {
      for (const [name, react] of Object.entries(LISTENERS)) window.removeEventListener(name, react, true);
    };
  },
};
