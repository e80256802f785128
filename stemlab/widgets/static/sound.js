// Sound of the stem mixer. mixer.py joins sound.js, transport.js and mixer.js to one ES module, which
// needs no imports and no build step.
//
// Pieces    requests stretches of audio from the kernel, decodes them, and drops the oldest.
// embedded  stands in for the kernel where `StemMixer.embed` put all answers into the model.
// Deck      the audio graph: a gain for each track and each row, meters, one output.

const CACHE_BYTES = 100e6; // of decoded audio
const PATIENCE_SECONDS = 12; // then the page says that the kernel does not answer

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
    this.tell = tell; // called when a piece has arrived
    this.rate = model.get("_sample_rate");
    this.samples = model.get("_samples");
    this.size = model.get("_piece_samples");
    this.count = Math.max(1, Math.floor(this.samples / this.size));
    this.tracks = model.get("_tracks").length;
    this.known = new Map(); // number -> AudioBuffers, least recently used first
    this.asked = new Map(); // number -> time of the first and the last request
    this.failure = ""; // why nothing is requested until the user tries again
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
    // Two requests at a time, so that what is needed first comes first. Repeated after a while: the
    // first request may be lost.
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
    // Decoding needs a context of the right rate, but neither an audio device nor permission.
    this.decoder ??= new OfflineAudioContext(1, 1, this.rate);
    const piece = await Promise.all(views.map((view) => this.decoder.decodeAudioData(bytes(view))));
    // Chromium counts samples as memory of the page, and collects them in time, once they were read.
    for (const buffer of piece) for (let i = 0; i < buffer.numberOfChannels; i++) buffer.getChannelData(i);
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

// Copy a part of a buffer: sources that start and end on whole samples need no rounding.
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
  // Apply mute, solo, gains and A/B from the model.
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
