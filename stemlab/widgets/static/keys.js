// Keys pressed on the buttons, lists and sliders of a panel are not the notebook's: JupyterLab would
// cut the cell at X. It leaves alone the keys of an element that has this attribute itself.

const KEEPS_KEYS = "data-lm-suppress-shortcuts";
// Of a panel, one of whose buttons was pressed to load a mixer: the mixer takes the focus then.
const AWAITS_MIXER = "stemlab-awaits-mixer";

const keep = (event) => {
  const { target } = event;
  // Fields for text already have their keys for themselves; saving the notebook stays a shortcut.
  if (!target.closest?.(".stemlab-panel") || target.matches(":read-write")) return;
  const saves = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
  target.toggleAttribute(KEEPS_KEYS, !saves);
};
// Or a click beside the controls, or on one that is disabled, would put the focus on the cell.
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
