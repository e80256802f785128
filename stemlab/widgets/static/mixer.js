// The page of the stem mixer: draws the rows, and turns what the user does into traits and calls of
// the transport. See sound.js.

const JUMP_SECONDS = 5;
const SHORTEST_LOOP_SECONDS = 0.1;

// JupyterLab takes keys pressed in an element for shortcuts (X cuts the cell) unless the element
// itself, not one around it, has this attribute.
const KEEPS_KEYS = "data-lm-suppress-shortcuts";

const make = (tag, properties = {}, parent = null) => {
  const { attributes = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  element.setAttribute(KEEPS_KEYS, "true");
  parent?.append(element);
  return element;
};

const clock = (seconds) => {
  const tenths = Math.floor(seconds * 10 + 1e-6);
  const rest = `${Math.floor(tenths / 10) % 60}`.padStart(2, "0");
  return `${Math.floor(tenths / 600)}:${rest}.${tenths % 10}`;
};

const paint = ({ rows, columns }, levels, colours) => {
  const canvas = make("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  for (let i = 0; i < levels.length; i++) {
    image.data.set(colours.subarray(4 * levels[i], 4 * levels[i] + 4), 4 * i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
};

class View {
  constructor(transport, model, el) {
    this.transport = transport;
    this.model = model;
    this.root = make("div", {
      className: "stemlab-mixer",
      tabIndex: 0,
      attributes: { role: "group", "aria-label": "Stem mixer" },
    }, el);
    this.root.mixer = transport; // for tests and the curious
    this.buildBar();
    this.buildRows();
    this.note = make("div", { className: "note", attributes: { role: "status" } }, this.root);
    const keys = make("details", { className: "keys" }, this.root);
    make("summary", { textContent: "Keys" }, keys);
    make("div", {
      textContent: "Space: play or pause. Left, right: 5 s. Home: start. [ and ]: ends of the loop. " +
        "L: loop off and on. X: other result. 1 to 9: solo a row; with Shift: mute it. " +
        "Click a lane to jump there, drag over it to loop.",
    }, keys);
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.draw = () => { if (!this.drawing) this.drawing = requestAnimationFrame(() => this.update()); };
    transport.listeners.add(this.draw);
    this.sizes = new ResizeObserver(() => { this.takeFocus(); this.stale = true; this.draw(); });
    this.sizes.observe(this.lanes);
    // Lanes are drawn in the colours of the theme.
    this.theme = new MutationObserver(() => { this.stale = true; this.draw(); });
    this.theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
    this.stale = true;
    this.draw();
  }
  dispose() {
    this.transport.listeners.delete(this.draw);
    this.sizes.disconnect();
    this.theme.disconnect();
    cancelAnimationFrame(this.drawing);
    this.disposed = true;
  }
  // Take the focus if a button of the panel was pressed to load this mixer (see keys.js).
  takeFocus() {
    if (!this.attached && this.root.closest(".stemlab-awaits-mixer")) this.root.focus({ preventScroll: true });
    this.attached = this.root.isConnected;
  }
  set(name, value) { this.model.set(name, value); this.model.save_changes(); }
  flip(name, row) {
    const rows = this.model.get(name);
    this.set(name, rows.includes(row) ? rows.filter((name) => name !== row) : [...rows, row]);
  }
  button(parent, text, label, onclick, className = "") {
    return make("button", { type: "button", textContent: text, title: label, className, onclick, attributes: { "aria-label": label } }, parent);
  }

  buildBar() {
    const { transport } = this, bar = make("div", { className: "bar" }, this.root);
    this.playButton = this.button(bar, "▶", "Play", () => this.toggle(), "play");
    this.position = make("input", {
      type: "range", className: "position", min: 0, max: transport.samples / transport.rate, step: 0.01,
      oninput: () => transport.seek(Math.round(+this.position.value * transport.rate)),
      attributes: { "aria-label": "Position" },
    }, bar);
    this.time = make("span", { className: "time" }, bar);
    const loops = make("span", { className: "group", attributes: { role: "group", "aria-label": "Loop" } }, bar);
    this.button(loops, "[", "Loop starts here", () => this.loopFrom());
    this.loopButton = this.button(loops, "Loop", "Loop", () => this.toggleLoop(), "loop");
    this.button(loops, "]", "Loop ends here", () => this.loopTo());
    this.labels = this.model.get("_labels");
    if (this.labels.length > 1) {
      const results = make("span", { className: "group", attributes: { role: "group", "aria-label": "Result that is heard" } }, bar);
      this.resultButtons = this.labels.map((label) => this.button(results, label, `Hear ${label}`, () => this.set("heard", label), "result"));
    }
    this.lanesButton = this.button(bar, "Spectrogram", "Spectrogram", () => {
      this.set("lanes", this.model.get("lanes") === "waveform" ? "spectrogram" : "waveform");
    }, "lanes-kind");
  }

  buildRows() {
    const rows = make("div", { className: "rows" }, this.root);
    this.lanes = make("div", { className: "overlay" }, rows);
    this.loopRange = make("div", { className: "loop-range" }, this.lanes);
    this.cursor = make("div", { className: "cursor" }, this.lanes);
    this.rows = this.model.get("_rows").map((name) => {
      const row = make("div", { className: "row", attributes: { role: "group", "aria-label": name } }, rows);
      const head = make("div", { className: "head" }, row);
      make("span", { className: "name", textContent: name, title: name }, head);
      const mute = this.button(head, "M", `Mute ${name}`, () => this.flip("muted", name), "mute");
      const solo = this.button(head, "S", `Solo ${name}`, () => this.flip("soloed", name), "solo");
      const gain = make("input", {
        type: "range", className: "gain", min: -40, max: 12, step: 0.5,
        attributes: { "aria-label": `Gain of ${name} in dB` },
        oninput: () => this.setGain(name, +gain.value),
        ondblclick: () => this.setGain(name, 0),
      }, head);
      const decibels = make("span", { className: "decibels" }, head);
      const meter = make("meter", { min: -60, max: 6, low: -12, high: -1, optimum: -60, value: -60, attributes: { "aria-label": `Level of ${name} in dB` } }, head);
      const lane = make("canvas", { className: "lane", attributes: { role: "img" } }, row);
      lane.addEventListener("pointerdown", (event) => this.onPointer(event, lane));
      return { name, element: row, mute, solo, gain, decibels, meter, lane };
    });
  }

  // ---------------------------------------------------------------- what the user does

  toggle() { if (this.transport.running) this.transport.pause(); else this.transport.play(); }
  setGain(name, decibels) { this.set("gains_db", { ...this.model.get("gains_db"), [name]: decibels }); }
  get duration() { return this.transport.samples / this.transport.rate; }
  setLoop(start, stop) {
    const shortest = Math.min(SHORTEST_LOOP_SECONDS, this.duration);
    const from = Math.max(0, Math.min(start, this.duration - shortest));
    this.lastLoop = [from, Math.min(this.duration, Math.max(stop, from + shortest))];
    this.set("loop_seconds", this.lastLoop);
  }
  toggleLoop() {
    const loop = this.model.get("loop_seconds");
    if (loop.length) this.lastLoop = loop;
    this.set("loop_seconds", loop.length ? [] : this.lastLoop ?? [0, this.duration]);
  }
  loopFrom() {
    const stop = this.model.get("loop_seconds")[1], here = this.transport.seconds;
    this.setLoop(here, stop > here ? stop : this.duration);
  }
  loopTo() {
    const start = this.model.get("loop_seconds")[0], here = this.transport.seconds;
    this.setLoop(start < here ? start : 0, here);
  }
  onPointer(event, lane) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.root.focus({ preventScroll: true });
    const box = lane.getBoundingClientRect();
    const at = ({ clientX }) => Math.max(0, Math.min(1, (clientX - box.left) / box.width)) * this.duration;
    const first = at(event);
    let dragged = false;
    lane.setPointerCapture(event.pointerId);
    const move = (moved) => {
      dragged ||= Math.abs(moved.clientX - event.clientX) > 4;
      if (dragged) this.preview = [Math.min(first, at(moved)), Math.max(first, at(moved))];
      this.draw();
    };
    const end = (ended) => {
      ["pointermove", "pointerup", "pointercancel"].forEach((name) => lane.removeEventListener(name, name === "pointermove" ? move : end));
      this.preview = null;
      if (ended.type === "pointercancel") this.draw();
      else if (dragged) this.setLoop(Math.min(first, at(ended)), Math.max(first, at(ended)));
      else this.transport.seek(Math.round(first * this.transport.rate));
    };
    lane.addEventListener("pointermove", move);
    lane.addEventListener("pointerup", end);
    lane.addEventListener("pointercancel", end);
  }
  onKey(event) {
    // No key is a shortcut of the notebook here, except for saving.
    const saves = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
    event.target.toggleAttribute(KEEPS_KEYS, !saves);
    if (saves) return;
    event.stopPropagation();
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const { transport } = this, isRange = event.target.type === "range";
    const jump = (seconds) => transport.seek(transport.sample + Math.round(seconds * transport.rate));
    const row = /^Digit[1-9]$/.test(event.code) ? this.model.get("_rows")[event.code.at(-1) - 1] : undefined;
    // Buttons keep their space bar, sliders their arrow keys.
    if (event.key === " " && event.target.tagName !== "BUTTON" && event.target.tagName !== "SUMMARY") this.toggle();
    else if (event.key === "ArrowLeft" && !isRange) jump(-JUMP_SECONDS);
    else if (event.key === "ArrowRight" && !isRange) jump(JUMP_SECONDS);
    else if (event.key === "Home" && !isRange) transport.seek(0);
    else if (event.key === "[") this.loopFrom();
    else if (event.key === "]") this.loopTo();
    else if (event.key.toLowerCase() === "l") this.toggleLoop();
    else if (event.key.toLowerCase() === "x" && this.labels.length > 1) {
      this.set("heard", this.labels.find((label) => label !== this.model.get("heard")));
    } else if (row) this.flip(event.shiftKey ? "muted" : "soloed", row);
    else return;
    event.preventDefault();
  }

  // ---------------------------------------------------------------- what is shown

  update() {
    this.drawing = 0;
    if (this.disposed) return;
    const { transport, model } = this, { running, seconds } = transport;
    this.playButton.textContent = running ? "❚❚" : "▶";
    this.playButton.title = running ? "Pause" : "Play";
    this.playButton.setAttribute("aria-label", running ? "Pause" : "Play");
    if (this.position !== document.activeElement || running) this.position.value = seconds;
    this.position.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(this.duration)}`);
    this.time.textContent = `${clock(seconds)} / ${clock(this.duration)}`;
    this.cursor.style.left = `${(100 * seconds) / this.duration}%`;
    const range = this.preview ?? model.get("loop_seconds");
    this.loopRange.hidden = !range.length;
    if (range.length) {
      this.loopRange.style.left = `${(100 * range[0]) / this.duration}%`;
      this.loopRange.style.width = `${(100 * (range[1] - range[0])) / this.duration}%`;
    }
    this.loopButton.setAttribute("aria-pressed", model.get("loop_seconds").length > 0);
    this.lanesButton.setAttribute("aria-pressed", model.get("lanes") === "spectrogram");
    this.resultButtons?.forEach((button, i) => button.setAttribute("aria-pressed", this.labels[i] === model.get("heard")));
    if (this.note.textContent !== model.get("message")) this.note.textContent = model.get("message");
    this.updateRows();
    if (running) this.draw();
  }
  updateRows() {
    const { transport, model } = this, levels = rowLevels(model), heard = model.get("heard");
    // Lanes are drawn again only if one of these changes.
    const shows = [heard, model.get("lanes"), !!transport.overview, transport.pictures.map(Boolean)];
    const redraw = this.stale || !same(shows, this.shown);
    this.stale = false;
    this.shown = shows;
    for (const row of this.rows) {
      row.mute.setAttribute("aria-pressed", model.get("muted").includes(row.name));
      row.solo.setAttribute("aria-pressed", model.get("soloed").includes(row.name));
      const gain = model.get("gains_db")[row.name] ?? 0;
      row.gain.value = gain;
      row.gain.setAttribute("aria-valuetext", `${gain.toFixed(1)} dB`);
      row.decibels.textContent = `${gain > 0 ? "+" : ""}${gain.toFixed(1)}`;
      const track = model.get("_tracks").findIndex((found) => found.row === row.name && (!found.label || found.label === heard));
      row.element.classList.toggle("silent", !levels[row.name] || track < 0);
      row.meter.value = this.level(row);
      if (redraw) this.drawLane(row, track);
    }
  }
  level(row) {
    const meter = this.transport.deck?.rows.get(row.name).meter;
    if (!meter || !this.transport.running) return (row.peak = -60);
    this.wave ??= new Float32Array(meter.fftSize);
    meter.getFloatTimeDomainData(this.wave.length === meter.fftSize ? this.wave : (this.wave = new Float32Array(meter.fftSize)));
    let peak = 0;
    for (const sample of this.wave) peak = Math.max(peak, Math.abs(sample));
    // Falls slowly, so that it can be read.
    return (row.peak = Math.max(20 * Math.log10(peak || 1e-6), (row.peak ?? -60) - 1, -60));
  }
  drawLane({ name, lane }, track) {
    const scale = window.devicePixelRatio || 1;
    const width = (lane.width = Math.max(1, Math.round(lane.clientWidth * scale)));
    const height = (lane.height = Math.max(1, Math.round(lane.clientHeight * scale)));
    const context = lane.getContext("2d"), { transport } = this;
    const kind = this.model.get("lanes"), picture = transport.pictures[track];
    if (track < 0) {
      lane.setAttribute("aria-label", `${name} is not part of ${this.model.get("heard")}`);
    } else if (kind === "spectrogram") {
      lane.setAttribute("aria-label", `Spectrogram of ${name}`);
      if (picture) context.drawImage(picture, 0, 0, width, height);
      else this.write(context, lane, transport.pictures.length ? "Computing the spectrogram…" : "No spectrogram", scale);
    } else if (transport.overview) {
      const envelope = transport.overview[track], columns = envelope.length / 2;
      const peak = envelope.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127;
      lane.setAttribute("aria-label", `Waveform of ${name}, its peak ${(20 * Math.log10(peak || 1e-5)).toFixed(0)} dB below the loudest of all`.replace("-", ""));
      context.fillStyle = getComputedStyle(lane).color;
      const perPixel = transport.samples / transport.overviewWidth / width;
      for (let x = 0; x < width; x++) {
        const first = Math.min(columns - 1, Math.floor(x * perPixel)), stop = Math.max(first + 1, Math.floor((x + 1) * perPixel));
        let low = 127, high = -127;
        for (let column = first; column < Math.min(stop, columns); column++) {
          low = Math.min(low, envelope[column]);
          high = Math.max(high, envelope[columns + column]);
        }
        const top = ((127 - high) / 254) * height;
        context.fillRect(x, top, 1, Math.max(scale, ((high - low) / 254) * height));
      }
    }
  }
  write(context, lane, text, scale) {
    const style = getComputedStyle(lane);
    context.fillStyle = style.color;
    context.font = `${12 * scale}px ${style.fontFamily}`;
    context.fillText(text, 8 * scale, lane.height / 2 + 4 * scale);
  }
}

export default () => {
  let transport;
  return {
    initialize({ model }) {
      transport = new Transport(model);
      return () => transport.dispose();
    },
    render({ model, el }) {
      const view = new View(transport, model, el);
      transport.show();
      return () => {
        view.dispose();
        transport.hide();
      };
    },
  };
};
