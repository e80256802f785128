// The stem mixer: every stem on one Web Audio clock. Plain ES module, no imports, no build step.
//
// Pieces    asks the kernel for stretches of audio, decodes them, and forgets the oldest.
// embedded  stands in for the kernel where `StemMixer.embed` put all answers into the model.
// Deck      the audio graph: a gain for each track and each row, meters, one way out.
// Transport decides what plays when: positions are whole samples on the clock of the context.
// render    draws the rows and turns what a person does into traits and calls of the transport.

const AHEAD_SECONDS = 4; // how far ahead audio is put on the clock
const FETCH_SECONDS = 12; // how far ahead it is fetched
const CACHE_BYTES = 100e6; // of decoded audio
const GUARD_SECONDS = 0.05; // the clock goes on while something is put on it
const FADE_SECONDS = 0.008; // against clicks
const PATIENCE_SECONDS = 12; // then the page says that the kernel does not answer
const JUMP_SECONDS = 5;
const ECHO_SECONDS = 1; // positions that come back from the kernel are at most this old
const SHORTEST_LOOP_SECONDS = 0.1;

const NO_AUDIO =
  "This browser has no audio device that plays: connect one and press Play again. " +
  "Everything else on this page works.";
const NEEDS_A_CLICK = "The browser plays nothing before the page was clicked: press Play.";
const NO_ANSWER = "No answer from the kernel. If it is busy, this goes on by itself; if it was " +
  "restarted, run the cell again.";

const bytes = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
const ask = (model, content) => {
  try { model.send(content); } catch { /* The kernel is gone: the page says so when nothing comes. */ }
};
const embedded = (model, receive) => ({
  get: (name) => model.get(name),
  send({ kind }) {
    for (const { content, buffers } of model.get("_answers")[kind] ?? []) {
      setTimeout(() => receive(content, buffers));
    }
  },
});
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

class Pieces {
  constructor(model, tell) {
    this.model = model;
    this.tell = tell; // called when something arrived, or did not
    this.rate = model.get("_sample_rate");
    this.samples = model.get("_samples");
    this.size = model.get("_piece_samples");
    this.count = Math.max(1, Math.floor(this.samples / this.size));
    this.tracks = model.get("_tracks").length;
    this.known = new Map(); // number -> AudioBuffers, the longest unused first
    this.asked = new Map(); // number -> since when, and when last
    this.failure = ""; // why nothing is asked for, until a person tries again
    this.capacity = Math.max(6, Math.floor(CACHE_BYTES / (this.tracks * this.size * 8)));
  }
  number(sample) { return Math.min(this.count - 1, Math.floor(sample / this.size)); }
  start(number) { return number * this.size; }
  stop(number) { return number === this.count - 1 ? this.samples : (number + 1) * this.size; }
  use(number) {
    const piece = this.known.get(number);
    if (piece) { this.known.delete(number); this.known.set(number, piece); }
    return piece;
  }
  want(number) {
    if (this.failure || number >= this.count || this.known.has(number)) return;
    const now = performance.now() / 1e3, wish = this.asked.get(number);
    // Two at a time: what is needed first comes first. Once more after a while, as the first may be lost.
    if (wish ? now - wish.last < PATIENCE_SECONDS : this.asked.size > 1) return;
    this.asked.set(number, { since: wish?.since ?? now, last: now });
    ask(this.model, { kind: "piece", piece: number });
  }
  forgetWishes() { this.asked.clear(); }
  giveUp(failure) { this.failure = failure; this.asked.clear(); }
  overdue() {
    const now = performance.now() / 1e3;
    return [...this.asked.values()].some(({ since }) => now - since > PATIENCE_SECONDS);
  }
  async receive(number, views) {
    if (!this.asked.has(number)) return; // another page asked
    // Decoding needs a context of the right rate, but no audio device and no permission.
    this.decoder ??= new OfflineAudioContext(1, 1, this.rate);
    const piece = await Promise.all(views.map((view) => this.decoder.decodeAudioData(bytes(view))));
    // Looked at once, samples count as memory of the page in Chromium, and are collected in time.
    for (const each of piece) for (let i = 0; i < each.numberOfChannels; i++) each.getChannelData(i);
    this.asked.delete(number);
    this.known.set(number, piece);
    while (this.known.size > this.capacity) this.known.delete(this.known.keys().next().value);
    this.tell();
  }
  async fetch(number) { // for rendering offline
    while (!this.use(number)) {
      if (this.failure) throw new Error(this.failure);
      this.asked.delete(number);
      this.want(number);
      await new Promise((resolve) => setTimeout(resolve, 20));
      for (let i = 0; i < 500 && this.asked.has(number); i++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
    return this.use(number);
  }
}

// A part of a buffer, as a buffer: what starts and ends on whole samples needs no rounding.
const part = (buffer, start, stop) => {
  if (start === 0 && stop >= buffer.length) return buffer;
  const length = Math.min(stop, buffer.length) - start;
  if (length <= 0) return null;
  const options = { length, numberOfChannels: buffer.numberOfChannels, sampleRate: buffer.sampleRate };
  const result = new AudioBuffer(options);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    result.copyToChannel(buffer.getChannelData(channel).subarray(start, start + length), channel);
  }
  return result;
};

class Deck {
  constructor(context, model) {
    this.context = context;
    this.model = model;
    this.master = context.createGain();
    this.master.connect(context.destination);
    this.rows = new Map(model.get("_rows").map((name) => {
      const gain = context.createGain(), meter = context.createAnalyser();
      meter.fftSize = 2048;
      gain.connect(meter);
      gain.connect(this.master);
      return [name, { gain, meter }];
    }));
    this.inputs = model.get("_tracks").map(({ row }) => {
      const input = context.createGain();
      input.connect(this.rows.get(row).gain);
      return input;
    });
    this.set((parameter, value) => { parameter.value = value; });
  }
  // Mute, solo, gains and A/B, as the model has them.
  set(put = (parameter, value) => parameter.setTargetAtTime(value, this.context.currentTime, 0.01)) {
    const levels = rowLevels(this.model);
    this.rows.forEach(({ gain }, name) => put(gain.gain, levels[name]));
    this.model.get("_tracks").forEach(({ label }, track) => {
      put(this.inputs[track].gain, !label || label === this.model.get("heard") ? 1 : 0);
    });
  }
  // Start samples [from, to) of a piece at a frame of the context.
  place(piece, from, to, frame) {
    const sources = [];
    piece.forEach((buffer, track) => {
      const cut = part(buffer, from, to);
      if (!cut) return;
      const source = this.context.createBufferSource();
      source.buffer = cut;
      source.connect(this.inputs[track]);
      source.onended = () => source.disconnect();
      source.start(frame / this.context.sampleRate);
      sources.push(source);
    });
    return sources;
  }
}

const rowLevels = (model) => {
  const muted = model.get("muted"), soloed = model.get("soloed"), gains = model.get("gains_db");
  return Object.fromEntries(model.get("_rows").map((name) => {
    const silent = soloed.length ? !soloed.includes(name) : muted.includes(name);
    return [name, silent ? 0 : 10 ** ((gains[name] ?? 0) / 20)];
  }));
};

class Transport {
  constructor(model) {
    this.model = model;
    this.id = `${Math.random()}`;
    this.listeners = new Set();
    this.views = 0;
    this.source = Object.keys(model.get("_answers")).length
      ? embedded(model, (content, views) => this.receive(content, views))
      : model;
    this.pieces = new Pieces(this.source, () => this.pump());
    this.rate = this.pieces.rate;
    this.samples = this.pieces.samples;
    this.running = false;
    this.at = Math.round(model.get("position_seconds") * this.rate); // while nothing runs
    this.spans = []; // what is on the clock
    this.overview = null;
    this.pictures = [];
    this.handlers = {
      "msg:custom": (content, views) => this.receive(content, views),
      // Another page may show the same mixer: where one plays, the others only follow. What code
      // starts plays in the page that is in view.
      "change:playing": () => {
        const player = model.get("_player");
        if (!model.get("playing")) this.pause();
        else if (this.views && (player ? player === this.id : document.visibilityState === "visible")) this.play();
      },
      "change:position_seconds": () => {
        const seconds = model.get("position_seconds"), sample = Math.round(seconds * this.rate);
        if (!this.running) { this.at = sample; this.pump(); this.emit(); }
        else if (Math.abs(seconds - this.seconds) > ECHO_SECONDS) this.seek(sample);
      },
      "change:loop_seconds": () => this.enterLoop(),
      "change:lanes": () => { this.wantPictures(); this.emit(); },
    };
    for (const name of ["muted", "soloed", "gains_db", "heard"]) {
      this.handlers[`change:${name}`] = () => { this.deck?.set(); this.emit(); };
    }
    Object.entries(this.handlers).forEach(([name, react]) => model.on(name, react));
    this.othersPlay = (event) => { if (event.detail !== this) this.pause(); };
    window.addEventListener("stemlab-mixer-plays", this.othersPlay);
    this.ask("overview");
    this.wantPictures();
    this.timer = setInterval(() => this.pump(), 100);
    this.pump();
  }
  // Without a view nobody could stop the sound.
  show() {
    this.views += 1;
    // Set by code before the mixer was shown; a page that is gone may have left it, too.
    if (this.model.get("playing") && !this.model.get("_player")) this.play();
  }
  hide() {
    this.views -= 1;
    if (!this.views) this.pause();
  }
  dispose() {
    this.running = false;
    clearInterval(this.timer);
    window.removeEventListener("stemlab-mixer-plays", this.othersPlay);
    Object.entries(this.handlers).forEach(([name, react]) => this.model.off(name, react));
    this.context?.close();
  }
  emit() { this.listeners.forEach((listener) => listener()); }
  say(message) {
    if (this.model.get("message") === message) return;
    this.model.set("message", message);
    this.model.save_changes();
    this.emit();
  }

  // ---------------------------------------------------------------- the kernel

  ask(kind) {
    this.asked = performance.now() / 1e3;
    ask(this.source, { kind });
  }
  wantPictures() {
    if (this.model.get("lanes") === "spectrogram" && !this.pictures.length) {
      this.pictures = new Array(this.pieces.tracks).fill(null);
      this.ask("spectrograms");
    }
  }
  receive(content, views) {
    if (content.kind === "overview") {
      this.overview = views.map((view) => new Int8Array(bytes(view)));
      this.overviewWidth = content.width;
      if (this.model.get("message") === NO_ANSWER) this.say("");
      this.emit();
    } else if (content.kind === "piece") {
      this.pieces.receive(content.piece, views)
        .catch((error) => this.giveUp(`This browser cannot decode the audio: ${error.message}`));
    } else if (content.kind === "spectrogram") {
      if (!this.pictures.length) this.pictures = new Array(this.pieces.tracks).fill(null);
      this.pictures[content.track] = paint(content, ...views.map((view) => new Uint8Array(bytes(view))));
      this.emit();
    } else if (content.kind === "failed") {
      // Those that another page asked for are not this one's.
      const paints = this.pictures.includes(null);
      if (paints) this.pictures = [];
      if (paints || this.pieces.asked.size) this.giveUp(content.message);
    }
  }
  // Nothing is asked for again until a person presses Play or jumps.
  giveUp(failure) {
    this.pieces.giveUp(failure);
    this.stop();
    this.say(failure);
  }
  tryAgain() {
    if (!this.pieces.failure) return;
    this.pieces.failure = "";
    this.say("");
  }

  // ---------------------------------------------------------------- the clock

  get frame() { return Math.round(this.context.currentTime * this.rate); }
  get loop() {
    const range = this.model.get("loop_seconds");
    if (!range.length) return null;
    return { start: Math.round(range[0] * this.rate), stop: Math.min(this.samples, Math.round(range[1] * this.rate)) };
  }
  get sample() {
    if (!this.running || !this.spans.length) return this.at;
    const frame = this.frame;
    let current = this.spans[0];
    for (const span of this.spans) if (span.frame <= frame) current = span;
    return current.sample + Math.max(0, Math.min(frame - current.frame, current.length));
  }
  get seconds() { return this.sample / this.rate; }

  async play() {
    if (this.running) return;
    this.tryAgain();
    this.running = true;
    if (this.at >= this.samples) this.at = 0;
    window.dispatchEvent(new CustomEvent("stemlab-mixer-plays", { detail: this }));
    try {
      if (!this.context) {
        this.context = new AudioContext({ sampleRate: this.rate, latencyHint: "playback" });
        this.deck = new Deck(this.context, this.model);
      }
      this.context.resume().catch(() => {});
    } catch (error) {
      this.stop();
      this.say(`${NO_AUDIO} (${error.message})`);
      return;
    }
    this.say("");
    this.begin(this.at);
    const before = this.context.currentTime;
    setTimeout(() => {
      if (!this.running || this.context.currentTime > before) return;
      const clicked = navigator.userActivation?.hasBeenActive ?? true;
      this.stop();
      this.say(this.context.state === "suspended" && !clicked ? NEEDS_A_CLICK : NO_AUDIO);
    }, 3000);
  }
  pause() { if (this.running) this.stop(); }
  stop() {
    this.at = this.sample;
    this.running = false;
    this.silence();
    this.push();
  }
  seek(sample) {
    this.at = Math.max(0, Math.min(this.samples, sample));
    this.tryAgain();
    this.pieces.forgetWishes();
    if (this.running) { this.silence(); this.begin(this.at); }
    this.push();
    this.pump();
  }
  enterLoop() {
    const loop = this.loop, here = this.sample;
    if (loop && (here < loop.start || here >= loop.stop)) this.seek(loop.start);
    else if (this.running) this.seek(here); // what is on the clock already may go beyond
    this.emit();
  }
  // Play from a sample on, as soon as possible.
  begin(sample) {
    this.next = { frame: 0, sample };
    this.at = sample;
    this.ending = false;
    this.pump();
  }
  silence() {
    if (!this.deck) return;
    const now = this.context.currentTime, gain = this.deck.master.gain;
    gain.cancelScheduledValues(now);
    gain.setValueAtTime(gain.value, now);
    gain.linearRampToValueAtTime(0, now + FADE_SECONDS);
    this.spans.forEach(({ sources }) => sources.forEach((each) => each.stop(now + FADE_SECONDS)));
    this.spans = [];
  }
  // Put on the clock what comes next, fetch what comes after it, tell the model where we are.
  pump() {
    if (this.running && this.context) this.schedule();
    this.prefetch();
    const waits = performance.now() / 1e3 - this.asked > PATIENCE_SECONDS && !this.overview;
    if (waits || this.pieces.overdue()) this.say(NO_ANSWER);
    else if (this.model.get("message") === NO_ANSWER) this.say("");
    if (this.running && performance.now() - (this.pushed ?? 0) > 250) this.push();
  }
  schedule() {
    const guard = Math.round(GUARD_SECONDS * this.rate), loop = this.loop;
    while (!this.ending && this.next.frame < this.frame + AHEAD_SECONDS * this.rate) {
      const { sample } = this.next, number = this.pieces.number(sample);
      const piece = this.pieces.use(number);
      if (!piece) break;
      const first = this.spans.length === 0, late = this.next.frame < this.frame + guard / 2;
      if (first || late) {
        this.next.frame = this.frame + guard;
        const when = this.next.frame / this.rate, gain = this.deck.master.gain;
        gain.cancelScheduledValues(when);
        gain.setValueAtTime(0, when);
        gain.linearRampToValueAtTime(1, when + FADE_SECONDS);
      }
      const start = this.pieces.start(number);
      let stop = this.pieces.stop(number);
      if (loop && sample < loop.stop) stop = Math.min(stop, loop.stop);
      const { frame } = this.next, length = stop - sample;
      const sources = this.deck.place(piece, sample - start, stop - start, frame);
      this.spans.push({ frame, sample, length, sources });
      this.next = { frame: frame + length, sample: loop && stop === loop.stop ? loop.start : stop };
      this.ending = this.next.sample >= this.samples;
    }
    const now = this.frame;
    while (this.spans.length > 1 && this.spans[1].frame <= now) this.spans.shift();
    if (this.ending && now >= this.next.frame) { this.stop(); this.seek(0); }
  }
  prefetch() {
    const loop = this.loop, most = this.pieces.capacity - 2;
    let sample = this.running && this.next ? this.next.sample : this.at, pieces = 0;
    // Never so many that the first are forgotten before they are played.
    for (let ahead = 0; ahead < (this.running ? FETCH_SECONDS : 1) * this.rate && pieces < most; pieces++) {
      if (sample >= this.samples) break;
      const number = this.pieces.number(sample);
      this.pieces.want(number);
      const stop = this.pieces.stop(number);
      ahead += stop - sample;
      sample = loop && sample < loop.stop && stop >= loop.stop ? loop.start : stop;
    }
  }
  push() {
    this.pushed = performance.now();
    this.model.set("position_seconds", this.seconds);
    this.model.set("playing", this.running);
    this.model.set("_player", this.running ? this.id : "");
    this.model.save_changes();
    this.emit();
  }

  // What would be heard from a sample on: the same graph and the same placing, without a device.
  async renderOffline(sample, length) {
    const context = new OfflineAudioContext(2, length, this.rate);
    const deck = new Deck(context, this.model);
    const stop = Math.min(this.samples, sample + length);
    for (let at = sample; at < stop;) {
      const number = this.pieces.number(at), start = this.pieces.start(number);
      const end = Math.min(stop, this.pieces.stop(number));
      deck.place(await this.pieces.fetch(number), at - start, end - start, at - sample);
      at = end;
    }
    return context.startRendering();
  }
}

// ------------------------------------------------------------------ the page

// JupyterLab takes the keys of an element for shortcuts (X cuts the cell) unless that very element,
// not one around it, has this attribute.
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
  // Once on the page, if a button of the panel was pressed to load this mixer (see keys.js).
  takeFocus() {
    if (!this.attached && this.root.closest(".stemlab-awaits-mixer")) this.root.focus({ preventScroll: true });
    this.attached = this.root.isConnected;
  }
  set(name, value) { this.model.set(name, value); this.model.save_changes(); }
  flip(name, row) {
    const rows = this.model.get(name);
    this.set(name, rows.includes(row) ? rows.filter((each) => each !== row) : [...rows, row]);
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
      return { name, row, mute, solo, gain, decibels, meter, lane };
    });
  }

  // ---------------------------------------------------------------- what a person does

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
    // None is a shortcut of the notebook, used here or not; only saving stays one.
    const saves = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
    event.target.toggleAttribute(KEEPS_KEYS, !saves);
    if (saves) return;
    event.stopPropagation();
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const { transport } = this, isRange = event.target.type === "range";
    const jump = (seconds) => transport.seek(transport.sample + Math.round(seconds * transport.rate));
    const row = /^Digit[1-9]$/.test(event.code) ? this.model.get("_rows")[event.code.at(-1) - 1] : undefined;
    // Buttons keep their own space bar, sliders their own arrow keys.
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
    // What the lanes show depends on this; anything else moves without drawing them again.
    const shows = [heard, model.get("lanes"), !!transport.overview, transport.pictures.map(Boolean)];
    const redraw = this.stale || !same(shows, this.shown);
    this.stale = false;
    this.shown = shows;
    for (const each of this.rows) {
      each.mute.setAttribute("aria-pressed", model.get("muted").includes(each.name));
      each.solo.setAttribute("aria-pressed", model.get("soloed").includes(each.name));
      const gain = model.get("gains_db")[each.name] ?? 0;
      each.gain.value = gain;
      each.gain.setAttribute("aria-valuetext", `${gain.toFixed(1)} dB`);
      each.decibels.textContent = `${gain > 0 ? "+" : ""}${gain.toFixed(1)}`;
      const track = model.get("_tracks").findIndex(({ row, label }) => row === each.name && (!label || label === heard));
      each.row.classList.toggle("silent", !levels[each.name] || track < 0);
      each.meter.value = this.level(each);
      if (redraw) this.drawLane(each, track);
    }
  }
  level(each) {
    const meter = this.transport.deck?.rows.get(each.name).meter;
    if (!meter || !this.transport.running) return (each.peak = -60);
    this.wave ??= new Float32Array(meter.fftSize);
    meter.getFloatTimeDomainData(this.wave.length === meter.fftSize ? this.wave : (this.wave = new Float32Array(meter.fftSize)));
    let peak = 0;
    for (const sample of this.wave) peak = Math.max(peak, Math.abs(sample));
    // Falls slowly enough to be read.
    return (each.peak = Math.max(20 * Math.log10(peak || 1e-6), (each.peak ?? -60) - 1, -60));
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
      const peak = envelope.reduce((most, each) => Math.max(most, Math.abs(each)), 0) / 127;
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
