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
const press = ({ target }) => {
  const button = target.closest?.(".stemlab-loads-mixer");
  button?.closest(".stemlab-panel")?.classList.add(AWAITS_MIXER);
};
const leave = ({ target }) => {
  if (target.closest(".stemlab-loads-mixer, .stemlab-mixer")) return;
  for (const panel of document.querySelectorAll(`.${AWAITS_MIXER}`)) panel.classList.remove(AWAITS_MIXER);
};

export default {
  initialize() {
    // Before JupyterLab, which listens to the document.
    window.addEventListener("keydown", keep, true);
    window.addEventListener("click", press, true);
    window.addEventListener("focusin", leave, true);
    return () => {
      window.removeEventListener("keydown", keep, true);
      window.removeEventListener("click", press, true);
      window.removeEventListener("focusin", leave, true);
    };
  },
};
