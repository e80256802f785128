// What plays when: positions are whole samples on the clock of the audio context. See sound.js.

const AHEAD_SECONDS = 4; // how far ahead audio is scheduled
const FETCH_SECONDS = 12; // how far ahead it is fetched
const GUARD_SECONDS = 0.05; // the clock goes on during scheduling
const FADE_SECONDS = 0.008; // against clicks

const NO_AUDIO =
  "This browser has no audio device that works. Connect one and press Play again. " +
  "Everything else on this page works.";
const NEEDS_A_CLICK = "The browser plays nothing until the page was clicked. Press Play.";
const NO_ANSWER = "No answer from the kernel. If it is busy, playback resumes by itself; if it was " +
  "restarted, run the cell again.";

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
    this.at = Math.round(model.get("position_seconds") * this.rate); // position while nothing plays
    this.spans = []; // what is scheduled
    this.overview = null;
    this.pictures = [];
    this.handlers = {
      "msg:custom": (content, views) => this.receive(content, views),
      // Several pages may show the same mixer: one plays, the others follow. What code starts plays
      // in the page that is visible.
      "change:playing": () => {
        const player = model.get("_player");
        if (!model.get("playing")) this.pause();
        else if (this.views && (player ? player === this.id : document.visibilityState === "visible")) this.play();
      },
      "change:position_seconds": () => {
        // While it plays, this is an echo of what it reported; code makes it jump by a message.
        if (this.running) return;
        this.at = Math.round(model.get("position_seconds") * this.rate);
        this.pump();
        this.emit();
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
  // Plays only while it has a view: otherwise nobody could stop the sound.
  show() {
    this.views += 1;
    // Set by code before the mixer was shown, or left by a page that was closed.
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
    } else if (content.kind === "jump") {
      if (this.running) this.seek(Math.round(content.seconds * this.rate));
    } else if (content.kind === "failed") {
      // Unless another page made the request.
      const paints = this.pictures.includes(null);
      if (paints) this.pictures = [];
      if (paints || this.pieces.asked.size) this.giveUp(content.message);
    }
  }
  // Request nothing more until the user presses Play or jumps.
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
    else if (this.running) this.seek(here); // what is already scheduled may go beyond the loop
    this.emit();
  }
  // Play from a sample, as soon as possible.
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
    this.spans.forEach(({ sources }) => sources.forEach((source) => source.stop(now + FADE_SECONDS)));
    this.spans = [];
  }
  // Schedule what comes next, fetch what comes after it, report the position to the model.
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
    // Not so many that the first are dropped before they are played.
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

  // Render what would be heard from a sample: the same graph and scheduling, without a device.
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
